import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch.multiprocessing import start_processes

from cyclegan.data.images import ImageError, find_images
from cyclegan.evaluation.evaluator import Evaluator, Settings, evaluate
from cyclegan.evaluation.extractors import from_callable

SETTINGS = Settings(subsets=5, subset_size=4)


def colours(pictures):
    return torch.cat([pictures.float().mean((2, 3)), pictures.float().std((2, 3))], 1)


EXTRACTOR = from_callable("colours", colours)
METRICS = ["fid", "kid", "kid_subsets", "precision_recall", "density_coverage"]


def numbers_of_folders(folders, batch_size, metrics):
    return evaluate(*folders, EXTRACTOR, metrics, SETTINGS, batch_size=batch_size).numbers


def numbers_of_streams(folders, batch_size, metrics):
    """Each rank is given its share of the tensors."""
    evaluator = Evaluator(EXTRACTOR, metrics, SETTINGS)
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    for folder, real in zip(folders, (False, True), strict=True):
        for path in find_images(folder)[rank::world]:
            with Image.open(path) as image:
                picture = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
            evaluator.update(picture.view(1, 48, 64, 3).permute(0, 3, 1, 2), real=real)
    return evaluator.compute().numbers


def error_of_folders(folders, batch_size, metrics):
    try:
        evaluate(*folders, EXTRACTOR, metrics, batch_size=batch_size)
    except ImageError as error:
        return str(error)


def _rank(rank, world, work, arguments, meeting, answers):
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    torch.save(work(*arguments), answers / f"{rank}.pt")
    dist.destroy_process_group()


def on_ranks(world, tmp_path, work, *arguments):
    answers = tmp_path / f"answers{world}"
    answers.mkdir()
    inputs = (world, work, arguments, tmp_path / f"meeting{world}", answers)
    start_processes(_rank, inputs, nprocs=world, start_method="fork")
    return [torch.load(answers / f"{rank}.pt", weights_only=False) for rank in range(world)]


@pytest.fixture(scope="module")
def folders(make_folder):
    return make_folder(11, seed=0), make_folder(13, seed=1)


@pytest.mark.parametrize("work", [numbers_of_folders, numbers_of_streams])
@pytest.mark.parametrize("world, batch_size", [(2, 3), (3, 32)])
def test_every_rank_has_the_numbers_of_one_process(folders, tmp_path, work, world, batch_size):
    alone = work(folders, 5, METRICS)
    for numbers in on_ranks(world, tmp_path, work, folders, batch_size, METRICS):
        assert numbers == pytest.approx(alone, rel=1e-6)


def test_summed_up_shares_merge_to_the_whole(folders, tmp_path, monkeypatch):
    alone = numbers_of_folders(folders, 4, ["fid"])
    monkeypatch.setattr("cyclegan.evaluation.evaluator.KEPT", 2)
    for numbers in on_ranks(3, tmp_path, numbers_of_folders, folders, 1, ["fid"]):
        assert numbers == pytest.approx(alone, rel=1e-9)


def test_a_damaged_picture_of_one_rank_is_named_on_all(tmp_path, make_folder):
    folders = make_folder(4), make_folder(4, seed=1)
    (folders[0] / "003.png").write_bytes(b"no picture")
    for message in on_ranks(2, tmp_path, error_of_folders, folders, 2, ["fid"]):
        assert "003.png" in message

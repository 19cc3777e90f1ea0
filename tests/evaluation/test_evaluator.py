import json
import logging
import os
import resource

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan.data.images import EXTENSIONS, ImageError, find_images, to_bytes
from cyclegan.data.transforms import to_picture
from cyclegan.devices import whole_float32
from cyclegan.evaluation.archive import save_statistics
from cyclegan.evaluation.evaluator import METRICS, Evaluator, Settings, evaluate, number_names, side_of
from cyclegan.evaluation.extractors import from_callable, from_file, inception
from cyclegan.evaluation.features import Pictures, collect, read_rgb
from cyclegan.evaluation.statistics import EvaluationError


def colours(pictures):
    return torch.cat([pictures.float().mean((2, 3)), pictures.float().std((2, 3))], 1)


@pytest.fixture
def extractor():
    return from_callable("colours", colours, weights_sha256="v1")


@pytest.fixture(scope="module")
def folders(make_folder):
    return make_folder(8, seed=0), make_folder(9, seed=1)


def test_numbers_of_another_network_are_not_called_fid(folders, extractor):
    assert set(evaluate(*folders, extractor).numbers) == {"fd_colours", "kid_colours"}


def test_numbers_of_the_published_weights_are(folders, published_weights):
    assert set(evaluate(*folders, inception(layer=64)).numbers) == {"fid", "kid"}


def test_tensors_score_as_the_files_they_would_be_saved_to(folders, extractor):
    evaluator = Evaluator(extractor)
    for folder, real in zip(folders, (False, True), strict=True):
        for path in find_images(folder):
            evaluator.update(read_rgb(path)[None].float() / 127.5 - 1, real=real)
    assert evaluator.compute().numbers == pytest.approx(evaluate(*folders, extractor).numbers, rel=1e-9)


def test_merged_evaluators_are_the_evaluator_of_both(folders, extractor):
    whole, parts = Evaluator(extractor), [Evaluator(extractor) for _ in range(3)]
    for folder, real in zip(folders, (False, True), strict=True):
        for index, path in enumerate(find_images(folder)):
            for evaluator in (whole, parts[index % 3]):
                evaluator.update(read_rgb(path)[None], real=real)
    parts[0].merge(parts[1])
    parts[0].merge(parts[2])
    assert parts[0].compute().numbers == pytest.approx(whole.compute().numbers, rel=1e-9)


def test_evaluators_of_two_networks_do_not_merge(extractor):
    with pytest.raises(ValueError, match="cannot merge features of colours and of others"):
        Evaluator(extractor).merge(Evaluator(from_callable("others", colours)))


def test_bounded_memory_gives_the_same_distance(folders, extractor, monkeypatch):
    kept = evaluate(*folders, extractor, ["fid"]).numbers
    monkeypatch.setattr("cyclegan.evaluation.evaluator.KEPT", 3)
    assert side_of(folders[0], extractor, ["fid"]).features is None
    assert evaluate(*folders, extractor, ["fid"], batch_size=2).numbers == pytest.approx(kept, rel=1e-9)


def test_a_generator_is_scored_without_saving_its_pictures(folders, extractor, tmp_path):
    def darker(path):
        return to_bytes((read_rgb(path)[None].float() / 127.5 - 1) * 0.5 - 0.5)[0]

    for path in find_images(folders[0]):
        Image.fromarray(darker(path).permute(1, 2, 0).numpy()).save(tmp_path / path.name)
    in_memory = evaluate(Pictures(find_images(folders[0]), read=darker), folders[1], extractor)
    assert in_memory.numbers == evaluate(tmp_path, folders[1], extractor).numbers


def test_a_reference_is_computed_once_for_many_evaluations(folders, extractor):
    reference = side_of(folders[1], extractor)
    expected = evaluate(*folders, extractor)
    again = evaluate(folders[0], reference, extractor)
    assert (again.numbers, again.card["real"]) == (expected.numbers, expected.card["real"])


def test_bootstrap_adds_standard_errors_and_intervals(folders, extractor):
    result = evaluate(*folders, extractor, settings=Settings(bootstrap=50))
    for name in ("fd", "kid"):
        low, value, high = (result.numbers[f"{name}{part}_colours"] for part in ("_low", "", "_high"))
        assert low < value < high and result.numbers[f"{name}_stderr_colours"] > 0
    assert (result.card["settings"]["bootstrap"], result.card["settings"]["confidence"]) == (50, 0.95)
    assert "bootstrap percentiles" in result.card["intervals"]
    narrow = evaluate(*folders, extractor, settings=Settings(bootstrap=50, confidence=0.5)).numbers
    assert result.numbers["fd_low_colours"] < narrow["fd_low_colours"]


def test_bootstrap_wants_the_features_even_for_fid_alone(folders, extractor, tmp_path, monkeypatch):
    save_statistics(tmp_path / "real.npz", side_of(folders[1], extractor), with_features=False)
    with pytest.raises(EvaluationError, match=r"bootstrap needs the features of .*real\.npz"):
        evaluate(folders[0], tmp_path / "real.npz", extractor, ["fid"], Settings(bootstrap=10))
    monkeypatch.setattr("cyclegan.evaluation.evaluator.KEPT", 3)
    assert "fd_low_colours" in evaluate(*folders, extractor, ["fid"], Settings(bootstrap=10)).numbers


def test_the_card_tells_another_how_to_get_the_number(folders, extractor):
    card = json.loads(json.dumps(evaluate(*folders, extractor, checkpoint="run/AtoB.safetensors").card))
    assert (card["fake"]["n"], card["real"]["n"]) == (8, 9)
    assert card["fake"]["fingerprint"] != card["real"]["fingerprint"]
    assert card["checkpoint"] == "run/AtoB.safetensors"
    assert {"protocol", "layer", "weights_sha256", "versions", "date", "command", "settings"} <= card.keys()
    assert any("below 2048" in warning for warning in card["warnings"])


def test_a_fingerprint_knows_contents_and_names_but_not_the_folder(make_folder, extractor, tmp_path):
    first, copy, other = make_folder(3), make_folder(3, folder=tmp_path / "copy"), make_folder(3, seed=9)
    marks = [side_of(folder, extractor).fingerprint for folder in (first, copy, other)]
    assert marks[0] == marks[1] != marks[2]
    (copy / "000.png").rename(copy / "zzz.png")
    assert side_of(copy, extractor).fingerprint != marks[0]


def test_every_kind_of_picture_that_training_reads_is_scored(tmp_path, extractor):
    for suffix in EXTENSIONS:
        mode = {".pgm": "L", ".pbm": "1", ".gif": "P"}.get(suffix, "RGB")
        Image.effect_noise((16, 16), 50).convert(mode).save(tmp_path / f"{suffix[1:]}{suffix}")
    assert side_of(tmp_path, extractor).n == len(EXTENSIONS)


def test_odd_pictures_are_counted_in_warnings(tmp_path, extractor):
    picture = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    picture.save(tmp_path / "a.jpg")
    picture.save(tmp_path / "b.JPEG")
    picture.convert("L").save(tmp_path / "c.png")
    picture.convert("RGBA").save(tmp_path / "d.png")
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(tmp_path / "e.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "f.png", exif=exif)
    warnings = "\n".join(side_of(tmp_path, extractor).warnings)
    for count, subject in [
        (2, "JPEG"),
        (1, "16-bit"),
        (1, "pictures with transparency"),
        (1, "grey"),
        (1, "pictures with an EXIF"),
    ]:
        assert f"{count} {subject}" in warnings


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_picture_is_named_in_one_line(folders, tmp_path, extractor, workers):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    with pytest.raises(ImageError, match=r"^cannot read .*broken\.png: [^\n]*$"):
        evaluate(tmp_path, folders[1], extractor, workers=workers)


def test_one_picture_and_an_empty_folder_are_refused(folders, tmp_path, extractor):
    with pytest.raises(FileNotFoundError, match="no images in"):
        evaluate(tmp_path, folders[1], extractor)
    Image.new("RGB", (8, 8)).save(tmp_path / "only.png")
    with pytest.raises(ValueError, match=r"at least 2 images.*only\.png"):
        evaluate(tmp_path, folders[1], extractor)
    with pytest.raises(ValueError, match="at least 2 images on each side, got 0"):
        Evaluator(extractor).compute()


def test_too_few_pictures_for_infinity_are_told_before_they_are_read(folders, extractor):
    """They would be translated first, which may take hours."""
    few = Pictures(["unread.png"] * 9, read=lambda path: pytest.fail(f"read {path}"))
    with pytest.raises(EvaluationError, match="6 features needs at least 30 images, got 9"):
        evaluate(few, folders[1], extractor, ["fid_infinity"])


def test_unknown_metrics_list_the_known_ones(folders, extractor):
    with pytest.raises(ValueError, match="no metric fud: expected some of fid, "):
        evaluate(*folders, extractor, ["fud"])


def test_a_word_in_place_of_a_list_of_metrics_is_said(folders, extractor):
    with pytest.raises(EvaluationError, match=r"a list, such as \['fid'\]"):
        evaluate(*folders, extractor, metrics="fid")


def test_a_list_of_files_may_be_of_text(folders, extractor):
    paths = (str(path) for path in find_images(folders[0]))
    assert evaluate(paths, folders[1], extractor).numbers == evaluate(*folders, extractor).numbers


@pytest.mark.parametrize("wrong", [255.0, float("nan"), float("inf")])
def test_floats_of_another_range_and_what_is_no_number_are_refused(extractor, wrong):
    with pytest.raises(EvaluationError, match=r"floats must lie in \[-1, 1\]"):
        Evaluator(extractor).update(torch.full((2, 3, 8, 8), wrong), real=False)


def test_a_number_of_pictures_that_a_file_does_not_tell_is_called_unknown(folders, tmp_path, extractor):
    known = collect(Pictures(find_images(folders[1])), extractor).statistics
    np.savez(tmp_path / "x.npz", mu=known.mu, sigma=known.sigma)
    warnings = evaluate(tmp_path / "x.npz", folders[1], extractor, ["fid"]).warnings
    assert any("real and an unknown number of fake images: below 2048" in warning for warning in warnings)


def test_kid_of_a_file_of_moments_says_what_is_missing(folders, tmp_path, extractor):
    save_statistics(tmp_path / "reference.npz", side_of(folders[1], extractor))
    assert evaluate(folders[0], tmp_path / "reference.npz", extractor, ["fid"]).numbers["fd_colours"] > 0
    with pytest.raises(ValueError, match=r"kid needs the features of .*reference\.npz"):
        evaluate(folders[0], tmp_path / "reference.npz", extractor, ["fid", "kid"])


def test_protocols_mix_only_on_demand(folders, tmp_path, extractor):
    save_statistics(tmp_path / "other.npz", side_of(folders[1], from_callable("other", colours)))
    with pytest.raises(EvaluationError, match="extractor other"):
        evaluate(folders[0], tmp_path / "other.npz", extractor, ["fid"])
    mixed = evaluate(folders[0], tmp_path / "other.npz", extractor, ["fid"], mix_protocols=True)
    assert any("other.npz was made with" in warning for warning in mixed.warnings)


@pytest.mark.parametrize("kind", ["script", "export"])
def test_networks_from_files_score_as_in_memory(folders, tmp_path, extractor, kind, caplog):
    class Colours(torch.nn.Module):
        def forward(self, pictures):
            return torch.cat([pictures.float().mean((2, 3)), pictures.float().std((2, 3))], 1)

    path = tmp_path / ("colours.pt" if kind == "script" else "colours.pt2")
    example = torch.zeros(4, 3, 48, 64, dtype=torch.uint8)
    if kind == "script":
        torch.jit.save(torch.jit.trace(Colours(), example), path)
    else:
        with caplog.at_level(logging.ERROR):
            torch.export.save(
                torch.export.export(Colours(), (example,), dynamic_shapes=[{0: torch.export.Dim("n")}]), path
            )
    numbers = evaluate(*folders, from_file(path), batch_size=3).numbers
    assert numbers == pytest.approx(evaluate(*folders, extractor).numbers, rel=1e-5)


def test_files_that_are_no_networks_are_named(tmp_path):
    (tmp_path / "x.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"x\.pt is neither a TorchScript nor"):
        from_file(tmp_path / "x.pt")


@pytest.mark.parametrize("network", [lambda x: x.float(), lambda x: torch.zeros(1, 4)])
def test_a_network_of_the_wrong_shape_is_named(folders, network):
    with pytest.raises(ValueError, match=r"extractor odd must return \(9, d\)"):
        evaluate(*folders, from_callable("odd", network))


def test_bytes_are_those_of_saved_pictures():
    images = torch.linspace(-1.2, 1.2, 3 * 50 * 7).view(1, 3, 50, 7)
    assert to_bytes(images)[0].permute(1, 2, 0).tolist() == np.asarray(to_picture(images[0])).tolist()


def test_grey_tensors_score_as_grey_files(extractor):
    grey = torch.arange(64, dtype=torch.uint8).view(1, 8, 8)
    assert torch.equal(extractor([grey]), extractor([grey.repeat(3, 1, 1)]))


def test_features_that_are_not_finite_are_refused(extractor):
    broken = from_callable("broken", lambda x: x.float().mean((2, 3)) * float("nan"))
    with pytest.raises(ValueError, match="broken gave features that are not finite"):
        broken([torch.zeros(3, 4, 4, dtype=torch.uint8)])


def test_float_pictures_are_not_taken_for_bytes(extractor):
    with pytest.raises(ValueError, match=r"uint8 \(1 or 3, h, w\), got torch.float32"):
        extractor([torch.zeros(3, 4, 4)])


def test_numbers_are_called_as_foretold():
    plain = from_callable("plain", lambda images: images.mean((2, 3)).double(), lambda images: images / 255)
    images = torch.randint(0, 256, (2, 20, 3, 8, 8), dtype=torch.uint8)
    evaluator = Evaluator(plain, list(METRICS), Settings(subset_size=6))
    for real, some in zip((True, False), images, strict=True):
        evaluator.update(some, real=real)
    assert list(evaluator.compute().numbers) == number_names(list(METRICS), plain)


def test_a_file_of_a_network_takes_pictures_of_several_sizes(tmp_path):
    class Means(torch.nn.Module):
        def forward(self, x):
            return x.float().mean((2, 3))

    torch.jit.script(Means()).save(tmp_path / "means.pt")
    extractor = from_file(tmp_path / "means.pt")
    draw = torch.Generator().manual_seed(0)
    sizes = [(8, 8), (6, 9), (8, 8), (5, 5), (6, 9)]
    pictures = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=draw) for size in sizes]
    expected = torch.stack([picture.float().mean((1, 2)) for picture in pictures])
    assert torch.allclose(extractor(pictures), expected)


def test_what_a_file_does_not_take_is_said(tmp_path):
    class Means(torch.nn.Module):
        def forward(self, x):
            return x.float().mean((2, 3))

    static = torch.export.export(Means(), (torch.zeros(2, 3, 8, 8, dtype=torch.uint8),))
    torch.export.save(static, tmp_path / "static.pt2")
    with pytest.raises(EvaluationError, match=r"extractor static fails on \(3, 3, 8, 8\)"):
        from_file(tmp_path / "static.pt2")(list(torch.zeros(3, 3, 8, 8, dtype=torch.uint8)))


def test_large_batches_come_from_workers_without_an_open_file_each(make_folder):
    """Of a process may have so many open; before, each picture of a batch had one."""
    pictures, plain = make_folder(120, size=(4, 4)), from_callable("mean", lambda x: x.float().mean((2, 3)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 60, hard))
    try:
        assert side_of(pictures, plain, batch_size=120, workers=1).n == 120
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_features_do_not_round_to_tf32_and_leave_the_setting_alone(monkeypatch):
    """Which of PyTorch's two kinds of switches a program may have used is all the same."""
    seen, cudnn = [], torch.backends.cudnn
    plain = from_callable("x", lambda x: seen.append(cudnn.conv.fp32_precision) or x.float().mean((2, 3)))
    monkeypatch.setattr(cudnn, "allow_tf32", True)
    for precision in ("highest", "medium"):
        torch.set_float32_matmul_precision(precision)
        plain([torch.zeros(3, 4, 4, dtype=torch.uint8)])
        assert cudnn.allow_tf32 and torch.get_float32_matmul_precision() == precision
    torch.set_float32_matmul_precision("highest")
    assert seen == ["ieee", "ieee"]


def test_the_last_thread_to_leave_sets_tf32_back():
    conv = torch.backends.cudnn.conv
    before, first, second = conv.fp32_precision, whole_float32(), whole_float32()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert conv.fp32_precision == "ieee"
    second.__exit__(None, None, None)
    assert conv.fp32_precision == before != "ieee"

"""What a run is: typed sections, YAML with dotted overrides, and errors that name the key and the nearest right one."""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from PIL import ImageColor
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
)

from cyclegan.mistakes import explained, unknown
from cyclegan.overrides import NAMED, ConfigError, joined, laid_over, parse_override, read_yaml, to_yaml

CHECKOUT = Path(__file__).parents[1] / "options"
OPTIONS = CHECKOUT if CHECKOUT.is_dir() else Path(sys.prefix, "share", "cyclegan", "options")  # or as installed
Size = PositiveInt | tuple[PositiveInt, PositiveInt]  # a square's side, or (height, width)
Fraction = typing.Annotated[float, Field(ge=0, lt=1)]
Share = typing.Annotated[float, Field(gt=0, le=1)]
Probability = typing.Annotated[float, Field(ge=0, le=1)]
Folder = typing.Annotated[Path, AfterValidator(Path.expanduser)]


def _colour(name: str) -> str:
    ImageColor.getrgb(name)  # raises ValueError
    return name


def _folder_name(name: str) -> str:
    if re.fullmatch(r"(\w|\.+[\w-])[\w.-]*", name):
        return name
    instead = re.sub(r"\W+", "_", name) or "run"
    raise ValueError(f"it names a folder: letters, digits, '_', '.' and '-' expected, as in {instead}")


Colour = typing.Annotated[str, AfterValidator(_colour)]
FolderName = typing.Annotated[str, AfterValidator(_folder_name)]


class Options(BaseModel):
    """What is neither known nor of its type is an error; to pydantic true is a number, too."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and not _takes_bool(cls.model_fields[info.field_name].annotation):
            raise ValueError("true and false are for switches, which this is not")
        return value


def _takes_bool(annotation: Any) -> bool:
    return annotation in (bool, Any) or any(map(_takes_bool, typing.get_args(annotation)))


class Section(Options):
    model_config = ConfigDict(validate_default=True, validate_assignment=True)


class Domain(Section):
    train: Folder | None = Field(None, description="folder of training pictures; found below data.root if not given")
    test: Folder | None = Field(
        None,
        description="folder of test pictures; found below data.root if not given; a file's is dropped where the "
        "command line names other training pictures",
    )
    channels: Literal[1, 3] = Field(3, description="3 for colour, 1 for grey")
    background: Colour = Field("white", description="colour behind transparent pixels: a name or '#rrggbb'")
    mask: Folder | None = Field(
        None, description="folder of masks named like the training pictures: translate white, keep black as it is"
    )
    test_mask: Folder | None = Field(None, description="the same for test pictures: sample sheets, scores, test.py")
    augment: list[dict[str, Any]] = Field(
        [], description="albumentations after crop and flip, e.g. [{name: ColorJitter, hue: 0.05, p: 0.5}]"
    )


class Data(Section):
    root: Folder | None = Field(None, description="folder with trainA, trainB, testA, testB (or train/A, or A/train)")
    A: Domain = Domain()
    B: Domain = Domain()
    resize: Literal["resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "zoom_and_crop", "none"] = Field(
        "resize_and_crop",
        description="to load_size, then a random crop; zoom_and_crop draws a scale for each crop; none rounds the "
        "sides to multiples of the generator's",
    )
    zoom: tuple[Share, Share] = Field(
        (1 / 3, 1.0), description="zoom_and_crop: smallest and largest scale, drawn for height and width apart"
    )
    load_size: Size = Field(286, description="pixels: side, or [height, width]; scale_width uses the width")
    crop_size: Size = Field(256, description="pixels: side, or [height, width]")
    flip: Probability = Field(0.5, description="probability of a horizontal flip")
    pairing: Literal["random", "ordered", "paired"] = Field(
        "random",
        description="B drawn at random for each A; ordered: the same place in both lists, the shorter one again and "
        "again; paired: the file of the same name (_A and _B at its end aside), cropped, flipped and augmented alike",
    )
    side_by_side: bool = Field(
        False, description="pictures of root/train and root/test (or val) hold A in their left half and B in the right"
    )
    shuffle: bool = Field(True, description="a new order every epoch")
    epoch_size: Literal["max", "min", "sum"] | PositiveInt = Field(
        "max", description="pairs an epoch: of the larger domain, the smaller, both together, or a number"
    )
    limit: PositiveInt | None = Field(None, description="use only the first so many pictures of a domain")
    corrupt: Literal["fail", "skip"] = Field(
        "fail", description="what a damaged picture does: training, sample sheets, scores, test.py"
    )
    cache: bool | Folder = Field(
        False,
        description="decode and resize training pictures once and keep them beside their folder, or in the one named "
        "here; 0.25 MB a picture at 286x286",
    )
    workers: NonNegativeInt = Field(2, description="loader processes for each training process; 0 loads in the loop")

    @property
    def one_size(self) -> bool:
        """Whether a domain's pictures all come out in crop_size."""
        return "crop" in self.resize


class DiffAugment(Section):
    policy: list[Literal["colour", "translation", "cutout"]] = Field(
        [], description="ways in which what discriminators see is varied (Zhao et al. 2020); none: it is not"
    )
    p: Probability = Field(1.0, description="probability of each way for each picture; with a target, where it starts")
    target: Probability | None = Field(
        None,
        description="adapt p until so much of real pictures' scores is on their side, 0.6 in the paper; null: fixed",
    )
    ramp_images: PositiveInt = Field(500_000, description="real pictures in which an adaptive p can go from 0 to 1")


class ContentTerms(Section):
    ssim: NonNegativeFloat = Field(0.0, description="weight of 1 - SSIM of pictures and their translations")
    ms_ssim: NonNegativeFloat = Field(0.0, description="weight of 1 - MS-SSIM; sides of 176 pixels and more")
    edges: NonNegativeFloat = Field(0.0, description="weight of 1 - the correlation of their edges (Sobel, luminance)")
    vgg: NonNegativeFloat = Field(0.0, description="weight of the mean absolute difference of their VGG features")
    lpips: NonNegativeFloat = Field(0.0, description="weight of LPIPS; needs `pip install lpips` and lpips_weights")
    tv: NonNegativeFloat = Field(0.0, description="weight of the translation's total variation, against noise")
    vgg_network: Literal["vgg16", "vgg19"] = Field("vgg19", description="torchvision's, trained on ImageNet")
    vgg_layers: list[str] = Field(["relu4_1"], description="relu1_1 … relu5_4; the deeper, the less colour counts")
    vgg_pooling: Literal["max", "average"] = Field("max", description="max as trained, average is smoother")
    vgg_weights: Folder | None = Field(None, description="torchvision's file, where it is not downloaded")
    lpips_trunk: Literal["alex", "vgg"] = Field("alex", description="network whose features LPIPS compares")
    lpips_weights: Folder | None = Field(None, description="torchvision's file of the trunk")


class Initial(Section):
    name: Literal["normal", "xavier", "kaiming", "orthogonal"] = Field("normal", description="distribution")
    gain: PositiveFloat = Field(0.02, description="standard deviation of normal, gain of xavier and orthogonal")


class OptimizerGroup(Section):
    lr: PositiveFloat | None = Field(None, description="learning rate in place of optimizer.lr")
    betas: tuple[Fraction, Fraction] | None = Field(None, description="in place of optimizer.betas")
    weight_decay: NonNegativeFloat | None = Field(None, description="in place of optimizer.weight_decay")


class Optimizer(Section):
    name: Literal["adam", "adamw", "sgd", "rmsprop"] = Field("adam", description="torch.optim")
    lr: PositiveFloat = Field(2e-4, description="learning rate before the schedule")
    scale_lr: Literal["none", "linear", "sqrt"] = Field(
        "none", description="multiply lr by the pairs an update (batch x processes x accumulated), or by their root"
    )
    betas: tuple[Fraction, Fraction] = Field((0.5, 0.999), description="of adam and adamw")
    momentum: Fraction = Field(0.0, description="of sgd and rmsprop")
    weight_decay: NonNegativeFloat = Field(0.0, description="of all")
    groups: dict[str, OptimizerGroup] = Field(
        {}, description="other values for one optimizer, e.g. {discriminators: {lr: 4e-4}}"
    )


class Schedule(Section):
    name: Literal["linear", "step", "cosine", "plateau", "constant"] = Field(
        "linear", description="linear: constant for training.epochs, then towards 0 over training.decay_epochs"
    )
    warmup_images: NonNegativeInt = Field(0, description="from 0 to the full rate over so many images")
    step_epochs: PositiveInt = Field(50, description="step: epochs between two drops")
    gamma: PositiveFloat = Field(0.1, description="step: factor of a drop")
    watch: str = Field("generators", description="plateau: the logged loss whose epoch mean should fall")
    factor: Fraction = Field(0.2, description="plateau: factor of a drop")
    patience: NonNegativeInt = Field(5, description="plateau: epochs without improvement before a drop")
    threshold: NonNegativeFloat = Field(0.01, description="plateau: relative change that counts as improvement")


class Training(Section):
    epochs: NonNegativeInt = Field(100, description="epochs at the full learning rate")
    decay_epochs: NonNegativeInt = Field(100, description="epochs of decay after them")
    batch_size: PositiveInt = Field(1, description="pairs for each process; the global one is printed at the start")
    accumulate: PositiveInt = Field(1, description="batches whose gradients are added up before an update")
    batches_per_epoch: PositiveInt | None = Field(None, description="end an epoch after so many batches")
    max_images: PositiveInt | None = Field(None, description="end the run after so many pairs")
    max_steps: PositiveInt | None = Field(None, description="end the run after so many updates")
    max_time: PositiveFloat | None = Field(
        None, description="minutes after which a session saves and stops; the run goes on with --resume auto"
    )
    ema: Fraction = Field(0.0, description="decay of the average of the generators' weights; 0 shows the raw ones")
    clip: PositiveFloat | None = Field(None, description="largest norm of an optimizer's gradient")
    rollbacks: NonNegativeInt = Field(
        0, description="how often to go back to the last good state, with a new seed, once the doctor sees bad weights"
    )


class Speed(Section):
    choice: Literal["plain", "auto"] = Field(
        "plain",
        description="`speed: auto` chooses what is not given here, and data.workers, for the device found; the run "
        "says and keeps what it chose",
    )
    precision: Literal["no", "fp16", "bf16", "fp64"] | None = Field(
        None,
        description="of convolutions; null takes accelerate launch --mixed_precision; fp64 makes all of it double, "
        "to tell rounding from errors",
    )
    channels_last: bool = Field(False, description="memory layout of networks and batches")
    winograd: bool = Field(False, description="3x3 convolutions with fewer products, in float32 on a CPU")
    compile: bool = Field(False, description="torch.compile the networks")
    compile_mode: Literal["reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] | None = Field(
        None, description="torch.compile's; the first two record CUDA graphs, for small batches that wait for launches"
    )
    tf32: bool = Field(False, description="let float32 products round to TF32 on Ampere and later")
    checkpointing: bool = Field(False, description="recompute residual blocks backwards: less memory, more time")


class Saving(Section):
    every_epochs: PositiveInt = Field(5, description="save training state and generators every so many epochs")
    every_images: PositiveInt | None = Field(None, description="and every so many images")
    keep_last: PositiveInt = Field(2, description="training states that stay on the disk")
    keep_best: NonNegativeInt = Field(1, description="and of those that were scored, so many of the best")


class Evaluation(Section):
    every_epochs: PositiveInt | None = Field(None, description="score the generators every so many epochs; null: never")
    metrics: list[str] = Field(["fid", "kid"], description="distances to the other domain's pictures")
    extractor: str = Field("inception", description="inception, effnet-lite0, or a TorchScript or .pt2 file")
    protocol: Literal["pytorch-fid", "torch-fidelity", "clean"] = Field(
        "pytorch-fid", description="resize and normalisation for inception"
    )
    inception_weights: Folder | None = Field(None, description="the FID's file of weights, where it is not downloaded")
    reference: Literal["test", "train"] = Field("test", description="the real pictures to compare with")
    best_by: str | None = Field(
        None, description="the score whose best states are kept, e.g. metrics/AtoB/fid; null: the first one"
    )


class Logging(Section):
    log_every: PositiveInt = Field(100, description="images between two lines of curves")
    sample_every: PositiveInt = Field(2000, description="images between two sample sheets")
    samples: NonNegativeInt = Field(8, description="test pictures of a domain on the sheet")
    trackers: list[Literal["tensorboard", "wandb", "mlflow", "comet_ml", "aim", "clearml", "dvclive"]] = Field(
        ["tensorboard"], description="Accelerate's trackers, by name"
    )


class Config(Section):
    """One run. Shipped examples are in options/."""

    name: FolderName = Field(description="the run's folder below `results`")
    results: Folder = Field(Path("results"), description="where runs are kept")
    seed: int = Field(0, ge=0, lt=2**32, description="of weights, order, crops and pools")
    deterministic: bool = Field(False, description="only deterministic kernels; slower on a GPU")
    init_from: Folder | dict[str, Folder] | None = Field(
        None,
        description="start from a run, a folder of the reference's files, or a file a network {G_AB: x.pth}",
    )
    algorithm: dict[str, Any] = Field({}, description="name (default cyclegan) and options of the algorithm")
    generator: dict[str, Any] = Field({}, description="name (default resnet) and options of the generators")
    discriminator: dict[str, Any] = Field({}, description="name (default patch) and options of the discriminators")
    diffaugment: DiffAugment = DiffAugment()
    terms: ContentTerms = ContentTerms()
    init: Initial = Initial()
    data: Data = Data()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    training: Training = Training()
    speed: Speed = Speed()
    saving: Saving = Saving()
    logging: Logging = Logging()
    evaluation: Evaluation = Evaluation()

    @field_validator("speed", mode="before")
    @classmethod
    def _in_a_word(cls, speed: Any) -> Any:
        return {"choice": speed} if isinstance(speed, str) else speed

    @field_validator(*NAMED)
    @classmethod
    def _with_name(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        return {"name": NAMED[info.field_name], **options}

    @property
    def folder(self) -> Path:
        return self.results / self.name

    def to_yaml(self) -> str:
        return to_yaml(self.model_dump(mode="json"))


def load_config(source: str | Path | dict[str, Any], overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """A checked Config from a YAML file, the name of one in options/, or a dict; `overrides` are "section.key=value".

    Raises ConfigError, which names the key or the file.
    """
    if isinstance(source, dict):
        values, origin = source, "the given options"
    else:
        path = _find(str(source))
        values, origin = read_yaml(path), str(path)
        values = {"name": path.stem, **values}
    given: dict[str, Any] = {}
    for override in overrides:
        given = joined(given, parse_override(override))
    try:
        return Config.model_validate(laid_over(values, given))
    except ValidationError as error:
        raise ConfigError(
            explained(error, Config, f"{origin} and what is given with it" if given else origin)
        ) from None


def build(where: str, choices: dict[str, Callable], options: dict[str, Any], *given: Any, **given_names: Any) -> Any:
    """Call the choice that `options["name"]` names with the rest as its keyword arguments, checked beforehand.

    Raises ConfigError for an unknown name, unknown or mistyped options, and for what the constructor refuses.
    """
    target, arguments = complete(where, choices, options, len(given), set(given_names))
    try:
        return target(*given, **given_names, **arguments)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def complete(
    where: str, choices: dict[str, Callable], options: dict[str, Any], skip: int = 0, given: typing.Iterable[str] = ()
) -> tuple[Callable, dict[str, Any]]:
    """The named choice and all its options, defaults filled in; the first `skip` and the `given` ones are not asked."""
    options = dict(options)
    name = options.pop("name", None)
    if not isinstance(name, str) or name not in choices:
        raise ConfigError(f"{where}.name: {unknown(str(name), choices)}")
    fields = {
        parameter.name: (parameter.annotation, ... if parameter.default is parameter.empty else parameter.default)
        for parameter in list(signature(choices[name]).parameters.values())[skip:]
        if parameter.name not in given
    }
    model = create_model(name, __base__=Options, **fields)
    try:
        return choices[name], model.model_validate(options).model_dump()
    except ValidationError as error:
        raise ConfigError(explained(error, model, where, prefix=f"{where}.")) from None


def signature(target: Callable) -> inspect.Signature:
    return inspect.signature(target, eval_str=True)


def _find(name: str) -> Path:
    given, name = Path(name), name.removesuffix(".yaml")
    for path in (given, Path("options") / f"{name}.yaml", OPTIONS / f"{name}.yaml"):
        if path.is_file():
            return path
    shipped = sorted({path.stem for folder in (Path("options"), OPTIONS) for path in folder.glob("*.yaml")})
    raise ConfigError(f"--config: no file {given}, nor one of that name in options/; {unknown(name, shipped)}")

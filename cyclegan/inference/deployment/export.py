"""Generators as files for other programs: torch.export, ONNX, TorchScript and safetensors, each with its contract."""

from __future__ import annotations

import copy
import io
import math
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import Dim

from cyclegan.data.images import find_images, read_image, to_tensor
from cyclegan.inference.checkpoints.generator_file import save_generator
from cyclegan.inference.deployment.deployed import Deployed, needed_side
from cyclegan.inference.deployment.exported import (
    ExportError,
    contract_path,
    extra,
    open_exported,
    read_contract,
    write_contract,
)
from cyclegan.inference.translate import pad_for, translate_tensor
from cyclegan.networks.pretrained import sha256_of
from cyclegan.networks.styled import StyledGenerator
from cyclegan.whole_files import open_replacing

Format = Literal["pt2", "onnx", "torchscript", "safetensors"]
SUFFIXES = {"pt2": ".pt2", "onnx": ".onnx", "torchscript": ".ts", "safetensors": ".safetensors"}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "int8": torch.float32}
# Deviation from float32 in eager mode, of a range of 2, that --verify accepts: the largest one for fp32, else the mean,
# because single pixels at edges may flip.
TOLERANCES = {"fp32": 1e-3, "fp16": 0.01, "bf16": 0.05, "int8": 0.2}
SIZES, BATCHES = ((256, 256), (101, 254), (512, 384)), (1, 3)
LEVEL = 2 / 255  # one step of uint8 in [-1, 1]
CONTRACT_FORMAT = 1


@dataclass(frozen=True)
class Options:
    """What goes into the graph.

    precision: of the network: fp32, fp16, bf16 (not onnx) or int8 (onnx only); what goes in and out stays float32
    pad, uint8, resize: see `Deployed`
    calibration: int8: pictures (a folder) from which the ranges of the activations are taken
    style_input: the graph takes a style, too: (1, 3, h, w) of any size, for all contents of a batch
    """

    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"
    pad: bool = False
    uint8: bool = False
    resize: tuple[int, int] | None = None
    calibration: Path | None = None
    style_input: bool = False


@dataclass(frozen=True)
class Deviation:
    """How far an exported file is from the eager float32 network for one kind of input, in a range of 2."""

    batch: int
    height: int
    width: int
    largest: float
    mean: float


def export(
    generator: nn.Module, path: Path | str, format: Format, options: Options | None = None, overwrite: bool = False
) -> dict[str, Any]:
    """Write one file and its contract, `path`.json, beside it; returns the contract.

    Args:
        generator: from `load_generator`
        path: the file; its folder is made
        format: pt2 (torch.export), onnx, torchscript or safetensors (read by `load_generator`)
        options: what goes into the graph
        overwrite: replace a file that no earlier export wrote

    Raises ExportError.
    """
    path, options = Path(path), options or Options()
    _check(generator, format, options)
    if path.exists() and not (overwrite or contract_path(path).exists()):
        raise ExportError(f"{path} is there, and not from an export; choose another file, or --overwrite")
    path.parent.mkdir(parents=True, exist_ok=True)
    network = copy.deepcopy(generator).cpu().to(DTYPES[options.precision])
    if format == "safetensors":
        save_generator(path, network, {**generator.about, "precision": options.precision})
    else:
        deployed = Deployed(network, options.pad, options.uint8, options.resize).eval()
        write = {"pt2": _pt2, "onnx": _onnx, "torchscript": _torchscript}[format]
        content = write(deployed, _examples(deployed, options), _smallest(generator, format, options))
        if options.precision == "int8":
            content = _quantised(content, list(_calibration_inputs(generator, options)))
        with open_replacing(path) as file:
            file.write(content)
    return write_contract(path, _contract(generator, path, format, options))


def verify(
    generator: nn.Module,
    path: Path | str,
    sizes: Sequence[tuple[int, int]] = SIZES,
    batches: Sequence[int] = BATCHES,
) -> list[Deviation]:
    """Run an exported file beside the eager float32 network on random pictures, note the result in its contract.

    Raises ExportError for a file without contract, or with results that are not finite.
    """
    contract = read_contract(path)
    run, draw = open_exported(path), torch.Generator().manual_seed(0)
    deviations = []
    for batch in batches:
        for height, width in sizes:
            images = _smooth((batch, contract["input"]["channels"], height, width), draw)
            style = []
            if contract.get("style"):
                sides = (max(side, contract["style"]["smallest"]) for side in (width, height))
                style = [_smooth((1, 3, *sides), draw)]
            found = _exported(run, generator, contract, images, *style)
            difference = (found - _eager(generator, contract, images, *style)).abs()
            if not difference.isfinite().all():
                raise ExportError(f"{path}: results are not finite for {batch} of {height}x{width}; try fp32")
            deviations.append(Deviation(batch, height, width, difference.max().item(), difference.mean().item()))
    contract["largest_deviation"] = max(deviation.largest for deviation in deviations)
    contract["verified"] = [vars(deviation) for deviation in deviations]
    write_contract(path, contract)
    return deviations


def worst(deviations: Sequence[Deviation], contract: dict[str, Any]) -> tuple[float, float]:
    """The deviation that counts for this precision, and what it may be; uint8 may round a step away on each side.

    One that is not finite counts as infinite.
    """
    exact = contract["precision"] == "fp32"
    found = max(deviation.largest if exact else deviation.mean for deviation in deviations)
    if not all(math.isfinite(deviation.largest) for deviation in deviations):
        found = math.inf
    return found, TOLERANCES[contract["precision"]] + (LEVEL if contract["input"]["dtype"] == "uint8" else 0)


def _check(generator: nn.Module, format: Format, options: Options) -> None:
    if format == "safetensors" and (options.pad or options.uint8 or options.resize):
        raise ExportError("safetensors holds weights and no graph: padding, uint8 and resizing go into the others")
    if options.resize and min(options.resize) < 1:
        raise ExportError(f"--resize takes sides of at least 1 pixel, got {options.resize[0]} {options.resize[1]}")
    multiple, least = generator.multiple, max(generator.multiple, generator.smallest)
    if options.resize and not options.pad and any(side % multiple or side < least for side in options.resize):
        height, width = options.resize
        raise ExportError(
            f"--resize {height} {width}: this generator takes multiples of {multiple}, from {least} on; "
            "choose such sides, or add --pad, which continues edges and cuts the result back"
        )
    if options.precision == "int8" and (format != "onnx" or options.calibration is None):
        raise ExportError("int8 needs --format onnx and --calibration FOLDER with typical pictures")
    if options.style_input and not isinstance(generator, StyledGenerator):
        raise ExportError("--style-input: this generator has a style of its own and takes no other")
    if options.style_input and (format == "safetensors" or options.precision == "int8"):
        raise ExportError("--style-input is for graphs (pt2, onnx, torchscript) that are not int8")
    if options.style_input and format != "torchscript" and torch.__version__ < (2, 13):
        raise ExportError(
            f"--style-input: torch {torch.__version__} records graphs for styles of even or of odd sides only; "
            "take torch 2.13 or newer, or --format torchscript"
        )
    if options.precision == "bf16" and format == "onnx":
        raise ExportError("onnx: onnxruntime computes no convolutions in bf16; use fp16, or another format")


def _contract(generator: nn.Module, path: Path, format: Format, options: Options) -> dict[str, Any]:
    about = generator.about
    free = options.pad or options.resize is not None
    values = {"dtype": "uint8", "range": [0, 255]} if options.uint8 else {"dtype": "float32", "range": [-1, 1]}
    layout = {"layout": "NCHW", "order": "RGB", **values}
    return {
        "contract": CONTRACT_FORMAT,
        "file": path.name,
        "sha256": sha256_of(path),
        "format": format,
        "precision": options.precision,
        "direction": about.get("direction"),
        "input": {
            "name": "image",
            **layout,
            "channels": about["input"]["channels"],
            "batch": "any",
            "sides": "any" if free else f"multiples of {generator.multiple}",
            "multiple": 1 if free else generator.multiple,
            "smallest": _smallest(generator, format, options),
        },
        "style": {
            "name": "style",
            **layout,
            "channels": 3,
            "batch": 1,
            "sides": "any",
            "smallest": _smallest_style(generator, format),
        }
        if options.style_input
        else None,
        "output": {
            "name": "translation",
            **layout,
            "channels": about["output"]["channels"],
            "sides": list(options.resize) if options.resize else "the input's",
        },
        "preprocessing": {
            "transparent_on": about["input"].get("background", "white"),
            "pad_inside": options.pad,
            "resize_inside": list(options.resize) if options.resize else None,
            "otherwise": None if free else "continue right and bottom edges to the next multiple, cut the result back",
        },
        "source": {name: about.get(name) for name in ("source", "sha256", "run", "images")},
        "architecture": generator.architecture,
        "versions": {"torch": torch.__version__},
        "largest_deviation": None,
    }


# ---- writing


def _examples(deployed: Deployed, options: Options) -> tuple[Tensor, ...]:
    """Inputs on which a graph can be recorded without any of their sides being special."""
    multiple = deployed.generator.multiple
    height, width = needed_side(multiple, multiple + 24), needed_side(multiple, multiple + 33)
    if deployed.pad or deployed.resize:
        height, width = height - 1, width + 2
    channels = deployed.generator.architecture.get("in_channels", 3)
    examples = [torch.rand(2, channels, height, width) * 2 - 1]
    if options.style_input:
        examples.append(torch.rand(1, 3, multiple + 41, multiple + 50) * 2 - 1)
    return tuple(_as_input(example, deployed.uint8) for example in examples)


def _smallest(generator: nn.Module, format: Format, options: Options) -> int:
    """The shortest side that a graph takes: torch.export cannot tell one line from many, so no layer may have one."""
    multiple, recorded = generator.multiple, format in ("pt2", "onnx")
    if options.resize:
        return 2 if recorded else 1
    if not options.pad:
        return max(generator.smallest, 2 * multiple if recorded else 0)
    if not recorded:
        return 1
    return 2 if generator.smallest > multiple else multiple + 1


def _smallest_style(generator: nn.Module, format: Format) -> int:
    """The same of a style, which no encoder here shrinks by more than 16."""
    return max(generator.smallest, 32) if format in ("pt2", "onnx") else generator.smallest


def _pt2(deployed: Deployed, examples: tuple[Tensor, ...], smallest: int) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(_recorded(deployed, examples, smallest), buffer)
    return buffer.getvalue()


def _recorded(deployed: Deployed, examples: tuple[Tensor, ...], smallest: int) -> torch.export.ExportedProgram:
    multiple = 1 if deployed.pad or deployed.resize else deployed.generator.multiple
    height, width = (Dim(name, min=smallest // multiple, max=2**16 // multiple) for name in ("height", "width"))
    batch = Dim("batch", min=1, max=1024)
    shapes = [{0: batch, 2: multiple * height, 3: multiple * width}]
    if len(examples) > 1:
        least = _smallest_style(deployed.generator, "pt2")
        height, width = (Dim(f"style_{name}", min=least, max=2**16) for name in ("height", "width"))
        shapes.append({2: height, 3: width})
    return torch.export.export(deployed, examples, dynamic_shapes=tuple(shapes), strict=False)


def _onnx(deployed: Deployed, examples: tuple[Tensor, ...], smallest: int) -> bytes:
    onnx = extra("onnx")
    extra("onnxscript")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _recorded(deployed, examples, smallest),
            examples,
            dynamo=True,
            verbose=False,
            input_names=["image", "style"][: len(examples)],
            output_names=["translation"],
        )
    model = program.model_proto
    for value in (model.graph.input[0], model.graph.output[0]):
        for axis, name in _AXES.items():
            if value.type.tensor_type.shape.dim[axis].HasField("dim_param"):
                value.type.tensor_type.shape.dim[axis].dim_param = name
    onnx.checker.check_model(model)
    return model.SerializeToString()


_AXES = {0: "batch", 2: "height", 3: "width"}


def _torchscript(deployed: Deployed, examples: tuple[Tensor, ...], smallest: int) -> bytes:
    """Traced, so that it takes whatever the network takes; `smallest` is for the formats that state it."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(deployed, examples, check_trace=False), buffer)
    return buffer.getvalue()


def _quantised(model: bytes, inputs: list[Any]) -> bytes:
    """Convolutions in int8 (weights by channel, activations by what the calibration pictures reach)."""
    quantization = extra("onnxruntime.quantization")
    onnx = extra("onnx")

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.inputs = iter(inputs)

        def get_next(self):
            image = next(self.inputs, None)
            return None if image is None else {"image": image}

    # The last convolution makes the colours, which eight bits before tanh would band.
    last = [node.name for node in onnx.load_from_string(model).graph.node if node.op_type == "Conv"][-1:]
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        before.write_bytes(model)
        quantization.quantize_static(
            before,
            after,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=last,
        )
        return after.read_bytes()


def _calibration_inputs(generator: nn.Module, options: Options) -> Iterable[Any]:
    about = generator.about["input"]
    for path in find_images(options.calibration):
        image = to_tensor(read_image(path, about["channels"], about.get("background", "white")))[None]
        yield _as_input(image if options.pad or options.resize else pad_for(generator, image), options.uint8).numpy()


# ---- verifying


def _exported(run: Callable, generator: nn.Module, contract: dict[str, Any], images: Tensor, *style: Tensor) -> Tensor:
    height, width = images.shape[2:]
    uint8 = contract["input"]["dtype"] == "uint8"
    given = images if contract["input"]["multiple"] == 1 else pad_for(generator, images)
    with torch.no_grad():
        result = run(*(_as_input(one, uint8) for one in (given, *style)))
    if not contract["preprocessing"]["resize_inside"]:
        result = result[..., :height, :width]
    return result.float() / 127.5 - 1 if uint8 else result


def _eager(generator: nn.Module, contract: dict[str, Any], *inputs: Tensor) -> Tensor:
    if contract["input"]["dtype"] == "uint8":
        inputs = [_as_input(one, True).float() / 127.5 - 1 for one in inputs]
    size = contract["preprocessing"]["resize_inside"]
    if size:
        with torch.no_grad():
            return Deployed(generator, contract["preprocessing"]["pad_inside"], resize=tuple(size))(*inputs)
    return translate_tensor(generator, *inputs)


def _as_input(images: Tensor, uint8: bool) -> Tensor:
    return ((images + 1) * 127.5).round().to(torch.uint8) if uint8 else images


def _smooth(shape: tuple[int, int, int, int], draw: torch.Generator) -> Tensor:
    """Random pictures with areas and edges, more like photographs than noise is."""
    coarse = torch.rand(shape[0], shape[1], 9, 9, generator=draw) * 2 - 1
    image = nn.functional.interpolate(coarse, shape[2:], mode="bicubic", align_corners=True)
    return (image + 0.1 * torch.randn(shape, generator=draw)).clamp(-1, 1)

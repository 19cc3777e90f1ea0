"""Which published image sets there are: what they show, where they lie, what must arrive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cyclegan.data.images import find_images


@dataclass(frozen=True)
class PublishedSet:
    """What a set is, where its archive lies, and how many images each of its folders holds."""

    name: str
    about: str
    licence: str
    counts: dict[str, int]
    mirrors: tuple[str, ...] = ()  # web folders that hold the archive; none: see `by_hand`
    size: int | None = None  # of the archive, in bytes
    sha256: str | None = None
    by_hand: str = ""  # how to get a set that cannot be downloaded
    suffix: str = ".zip"

    def archive(self, root: Path) -> Path:
        return root / f"{self.name}{self.suffix}"

    def found(self, folder: Path) -> dict[str, int]:
        """How many images each of the set's folders holds below `folder`."""
        return {name: _count_images(folder / name) for name in self.counts}

    def is_in(self, folder: Path) -> bool:
        return all(self.found(folder).values())


def _count_images(folder: Path) -> int:
    try:
        return len(find_images(folder))
    except OSError:  # not there, or not for us to read
        return 0


# The second is for machines that cannot verify the first one's certificate, the third is the old address, often closed
# since 2023. Whatever the way, the sum decides.
CYCLEGAN = (
    "https://efrosgans.eecs.berkeley.edu/cyclegan/datasets",
    "http://efrosgans.eecs.berkeley.edu/cyclegan/datasets",
    "https://people.eecs.berkeley.edu/~taesung_park/CycleGAN/datasets",
)
PIX2PIX = (
    "https://efrosgans.eecs.berkeley.edu/pix2pix/datasets",
    "http://efrosgans.eecs.berkeley.edu/pix2pix/datasets",
    "https://people.eecs.berkeley.edu/~tinghuiz/projects/pix2pix/datasets",
)
HORSE2ZEBRA_COPY = "https://huggingface.co/datasets/kerls/cyclegan-horse2zebra/resolve/main"

IMAGENET = "ImageNet pictures: non-commercial research and teaching"
ART = "paintings from WikiArt; Flickr photographs belong to their authors: research only"
FLICKR = "Flickr photographs belong to their authors: research only"
GOOGLE_MAPS = "scraped from Google Maps, whose terms apply: research only"
CMP = "CMP Facade Database, cmp.felk.cvut.cz/~tylecr1/facade: research, cite Tylecek and Sara 2013"

CITYSCAPES = """\
cityscapes may not be passed on, so it takes an account: register at https://www.cityscapes-dataset.com, download
leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, unpack both, and run
  mkdir -p {folder}/trainA {folder}/trainB {folder}/testA {folder}/testB
  cp leftImg8bit/train/*/*_leftImg8bit.png {folder}/trainA/
  cp leftImg8bit/val/*/*_leftImg8bit.png {folder}/testA/
  cp gtFine/train/*/*_gtFine_color.png {folder}/trainB/
  cp gtFine/val/*/*_gtFine_color.png {folder}/testB/"""


# Bytes and sha256, from tensorflow/datasets, url_checksums/cycle_gan.txt.
ARCHIVES = {
    "horse2zebra": (116_867_962, "a74d9d392eecca9966b51287a76ca126af473d9de4f3e8fc0e9cda08fa1730a1"),
    "apple2orange": (78_456_409, "845a191e9af8926408ea597001cd03a452e3300a1f44a79fe329b3d59f6e3eb8"),
    "summer2winter_yosemite": (132_640_856, "167fe1726807a9d22bd106b4a6c0bd7953b688af924ac1bf967439c4961e49f9"),
    "monet2photo": (305_231_073, "88f91b00fc228f97c9411fbf1880ec1d119c98f1722e4cfcfaa2fb35fac05b04"),
    "cezanne2photo": (279_885_071, "3a6c10ca21f9485862f1cbd707744b9dc258954a04631271d23a3605eeb63cff"),
    "ukiyoe2photo": (292_946_532, "02a2a2fb5ecf425ca1bf86aca7304377da64a2a1d3b86df54eb65e4068bf3b08"),
    "vangogh2photo": (306_590_349, "362c3473e70be0944bda08d49d660eafdc2854df55d697835b8186d1d79caaff"),
    "iphone2dslr_flower": (339_964_458, "8fcb5e374d631b107e1d961b8c4cd0a186aa2a4ff3e279923f4c426128de7113"),
    "maps": (1_476_754_427, "639534f69dbf9f36bef8d6292a7698006361221f83f0285d7c9ca78afe6e8a9e"),
    "facades": (35_135_868, "9a31ebf3a31b9b5cd195dd5bf62e9308e00cb94604d1019e3889ac84248695c0"),
}


def _unpaired(name: str, about: str, licence: str, *images: int, mirrors: tuple[str, ...] = CYCLEGAN) -> PublishedSet:
    counts = dict(zip(("trainA", "trainB", "testA", "testB"), images, strict=True))
    return PublishedSet(name, about, licence, counts, mirrors, *ARCHIVES[name])


# Image counts: the catalogue page of cycle_gan in tensorflow/datasets.
_SETS = (
    _unpaired(
        "horse2zebra", "horses and zebras", IMAGENET, 1067, 1334, 120, 140, mirrors=(*CYCLEGAN, HORSE2ZEBRA_COPY)
    ),
    _unpaired("apple2orange", "apples and oranges", IMAGENET, 995, 1019, 266, 248),
    _unpaired("summer2winter_yosemite", "Yosemite in summer and in winter", FLICKR, 1231, 962, 309, 238),
    _unpaired("monet2photo", "Monet and landscape photographs", ART, 1072, 6287, 121, 751),
    _unpaired("cezanne2photo", "Cezanne and landscape photographs", ART, 525, 6287, 58, 751),
    _unpaired("ukiyoe2photo", "Ukiyo-e and landscape photographs", ART, 562, 6287, 263, 751),
    _unpaired("vangogh2photo", "Van Gogh and landscape photographs", ART, 400, 6287, 400, 751),
    _unpaired("iphone2dslr_flower", "flowers by telephone and by DSLR", FLICKR, 1812, 3325, 569, 480),
    _unpaired("maps", "aerial photographs and maps", GOOGLE_MAPS, 1096, 1096, 1098, 1098),
    _unpaired("facades", "house fronts and their label maps", CMP, 400, 400, 106, 106),
    PublishedSet(
        "cityscapes",
        "streets and their label maps",
        "own licence, account needed: non-commercial research",
        {"trainA": 2975, "trainB": 2975, "testA": 500, "testB": 500},
        by_hand=CITYSCAPES,
    ),
    PublishedSet(
        "flat2fluent3d",
        "flat and 3D emoji, 64x64",
        "MIT, Microsoft Fluent emoji",
        {"trainA": 644, "trainB": 646, "testA": 120, "testB": 120},
        by_hand="flat2fluent3d comes with this project: git checkout -- datasets/flat2fluent3d",
    ),
    PublishedSet(
        "pix2pix/facades",
        "facades as pairs, both halves in one file",
        CMP,
        {"train": 400, "val": 100, "test": 106},
        PIX2PIX,
        suffix=".tar.gz",
    ),
    PublishedSet(
        "pix2pix/maps",
        "maps as pairs, both halves in one file",
        GOOGLE_MAPS,
        {"train": 1096, "val": 1098},
        PIX2PIX,
        suffix=".tar.gz",
    ),
)
SETS = {one.name: one for one in _SETS}

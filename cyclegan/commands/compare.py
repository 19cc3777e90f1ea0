"""`cyclegan compare CARD CARD…`: a table of results, if they are of one measurement."""

from __future__ import annotations

import argparse
from pathlib import Path

from cyclegan.evaluation.card import check_comparable, load_card, table

SUMMARY = "put protocol cards into one table, or say why they cannot be compared"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="cyclegan compare", description=SUMMARY)
    parser.add_argument("cards", nargs="+", type=Path, metavar="CARD", help="JSON files of `cyclegan fid --card`")
    options = parser.parse_args(arguments)
    cards = {str(path): load_card(path) for path in options.cards}
    check_comparable(cards)
    first = next(iter(cards.values()))
    print(
        f"{first['extractor']}, protocol {first['protocol']}, layer {first['layer']}, "
        f"weights {first['weights_sha256'][:8]}, reference {first['real']['source']}"
    )
    print(table(cards))
    return 0

"""`cyclegan survey make|results`: ask people which pictures are better, and which are real."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from cyclegan.arguments import number_between, whole_number
from cyclegan.evaluation.printed import print_warnings
from cyclegan.survey import SurveyError
from cyclegan.survey.kit import KEY, Survey, make_survey
from cyclegan.survey.votes import Rate, read_results
from cyclegan.whole_files import write_whole

SUMMARY = "ask people: a page of pictures to compare, and the table of their answers"


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    return _make(options) if options.action == "make" else _results(options)


def _parser() -> argparse.ArgumentParser:
    usual = Survey({})
    parser = argparse.ArgumentParser(prog="cyclegan survey", description=SUMMARY)
    actions = parser.add_subparsers(dest="action", required=True)
    make = actions.add_parser("make", help="write the page that asks")
    make.add_argument("methods", nargs="+", type=_method, metavar="NAME=FOLDER", help="what each method made")
    make.add_argument("-o", "--output", type=Path, required=True, help="a new folder")
    make.add_argument("--input", type=Path, metavar="FOLDER", help="shown beside each pair: what they were made from")
    make.add_argument("--style", type=Path, metavar="PATH", help="shown beside each pair: one picture, or a folder")
    make.add_argument("--real", type=Path, metavar="FOLDER", help="also ask of single pictures: real or made?")
    make.add_argument("--title", default=usual.title, help="of the page (%(default)s)")
    make.add_argument("--prefer", default=usual.prefer, metavar="TEXT", help="the question of pairs (%(default)s)")
    make.add_argument("--deceive", default=usual.deceive, metavar="TEXT", help="of single pictures (%(default)s)")
    make.add_argument(
        "--questions", type=whole_number(2), default=usual.questions, help="of each kind, to one person (%(default)s)"
    )
    make.add_argument(
        "--pictures", type=whole_number(1), default=usual.pictures, help="taken of each folder, at most (%(default)s)"
    )
    make.add_argument("--size", type=whole_number(1), help="shrink longer sides to this many pixels (as they are)")
    make.add_argument(
        "--seconds", type=number_between(0, 3600), help="show single pictures only so long (as long as it takes)"
    )
    make.add_argument("--seed", type=int, default=usual.seed, help="of names and orders (%(default)s)")
    results = actions.add_parser("results", help="count the answers")
    results.add_argument("survey", type=Path, help="the folder that `make` wrote")
    results.add_argument("votes", nargs="+", type=Path, metavar="VOTES", help="participants' files, or folders of them")
    results.add_argument("--confidence", type=number_between(0, 1), default=0.95, help="of the intervals (%(default)s)")
    results.add_argument("--json", type=Path, metavar="FILE", help="write the results here too")
    return parser


def _make(options: argparse.Namespace) -> int:
    given = {name: value for name, value in vars(options).items() if name in Survey.__dataclass_fields__}
    survey = Survey(**given | {"methods": dict(options.methods), "inputs": options.input, "styles": options.style})
    if len(survey.methods) < len(options.methods):
        raise SurveyError("two methods of one name: NAME=FOLDER wants a name for each")
    made = make_survey(survey, options.output)
    print_warnings(made.warnings)
    print(f"to hand out, as a whole: {made.handout} (people open index.html in it); to keep: {options.output / KEY}")
    asks = min(made.preference, survey.questions) + made.deception
    print(f"one person answers {asks} questions; {made.preference} pairs, {made.deception} single pictures a person")
    return 0


def _results(options: argparse.Namespace) -> int:
    results = read_results(options.survey, options.votes, options.confidence)
    print_warnings(results.warnings)
    people, answers = len(results.participants), sum(results.participants.values())
    print(f"survey {results.survey}: participants {people}, answers {answers}")
    rows = [(f"{a} better than {b}", rate) for (a, b), rate in results.preference.items()]
    rows += [(f"{method or 'real pictures'}: called real", rate) for method, rate in results.called_real.items()]
    rows += [("the left one chosen", results.left)] if results.left else []
    width = max([len(name) for name, _ in rows], default=0)
    for name, rate in rows:
        print(f"  {name:<{width}}  {rate.share:6.1%}  {_interval(rate, results.confidence)}  {rate.count} of {rate.of}")
    if options.json:
        write_whole(options.json, json.dumps(results.as_json(), indent=1) + "\n")
    return 0


def _interval(rate: Rate, confidence: float) -> str:
    return f"({confidence:.4g} interval {rate.low:.1%} to {rate.high:.1%})"


def _method(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER")
    return name, Path(folder)

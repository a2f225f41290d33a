"""Find the golden examples of a programme, judge their events in memory, and check their expectations."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from engine.programme.conditions import NOWHERE, Place
from engine.programme.file.cases import CaseReader
from engine.programme.file.load import Loaded, load_file, load_programme, load_tree, refused
from engine.programme.file.nodes import Scalar, Sequence, read_tree, text_in
from engine.programme.file.problems import Code, Problems, Severity, names_like, nearest, shown, unusable
from operations.simulate.event_lines import Line
from operations.simulate.expectations import CaseDifference, differences
from operations.simulate.run import BadProgramme, simulate_lines
from schemas.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence as List
    from pathlib import Path

    from engine.programme.file.cases import Case
    from engine.programme.file.nodes import Node
    from engine.programme.file.problems import Problem
    from operations.simulate.outcome import Simulation

SUFFIX = ".cases.yaml"
SHARED_NAME = f"programme{SUFFIX}"


class BadCases(InputError):
    """Say that files of cases have errors, and carry all problems."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        errors = [problem for problem in problems if problem.severity is Severity.ERROR]
        files = list(dict.fromkeys(problem.file for problem in errors))
        again = "correct the cases and run the command again"
        several = f"{len(files)} files of cases have {len(errors)} errors; {again}"
        super().__init__(unusable(files[0], errors, again) if len(files) == 1 else several)
        self.problems = problems


@dataclass(frozen=True)
class CaseOutcome:
    """Say how a case went."""

    case: Case
    differences: tuple[CaseDifference, ...] = ()
    notes: tuple[str, ...] = ()
    """Hints that a reader may overlook."""
    refusal: str | None = None
    """Why this release cannot judge it."""

    @property
    def is_ok(self) -> bool:
        """Whether everything came out as expected."""
        return not self.differences and self.refusal is None

    def row(self) -> dict[str, Any]:
        """Return the outcome for a JSON document."""
        return {
            "id": self.case.id,
            "file": self.case.file,
            "line": self.case.line,
            "result": "ok" if self.is_ok else "failed",
            "differences": [asdict(difference) for difference in self.differences],
            "refusal": self.refusal,
            "notes": list(self.notes),
        }


def run_cases(path: Path, case_files: List[Path] = (), only: List[str] = ()) -> list[CaseOutcome]:
    """Judge the examples of the programme in `path` and compare; nothing is written.

    Args:
        path: a programme, or a file of cases that bring their programmes along.
        case_files: files of cases to take instead of the one next to the programme; its section `tests` always counts.
        only: ids of the cases to run; empty: all.

    Raises:
        BadProgramme: the programme has errors.
        BadCases: a file of cases has errors.
        InputError: this release does not judge the programme, there are no cases, or no case has one of these ids.
    """
    # collect the cases
    tested = None if _is_list(path) else _tested(path)
    if tested is None:
        case_files = [path, *case_files]
    problems: list[Problem] = []
    cases = [] if tested is None else list(tested.cases)
    for file in case_files or ([] if tested is None else _beside(path)):
        cases_of_file, problems_of_file = _read(file)
        cases += cases_of_file
        problems += problems_of_file
    problems += _doubled(cases)

    # check them, and the programmes that they bring
    programmes = [_programme_of(case, tested) for case in cases]
    brought = [*programmes, *(loaded for case in cases for loaded in _others_of(case).values())]
    problems += [problem for loaded in brought if loaded.programme is None for problem in loaded.problems]
    if any(problem.severity is Severity.ERROR for problem in problems):
        raise BadCases(tuple(problems))
    if not cases:
        raise InputError(f"{path} has no examples: write a section `tests` into it, or {_name_beside(path)} beside it")
    _refuse_unknown(only, [case.id for case in cases])

    # run them
    pairs = zip(cases, programmes, strict=True)
    return [run_case(case, loaded) for case, loaded in pairs if not only or case.id in only]


def read_cases(path: Path) -> tuple[Case, ...]:
    """Return the cases of a file.

    Raises:
        BadCases: the file cannot be read, or has errors.
    """
    cases, problems = _read(path)
    if problems:
        raise BadCases(problems)
    return cases


def run_case(case: Case, loaded: Loaded) -> CaseOutcome:
    """Judge the events of a case by a programme without errors, and compare."""
    others = _others_of(case)
    for each in (loaded, *others.values()):
        refusal = refused(each, case.file)
        if refusal is not None:
            return CaseOutcome(case, refusal=refusal)

    assert loaded.programme is not None  # a programme with errors is refused before
    lines = [Line(case.file, event.line, event.text.encode()) for event in case.events]
    simulation = simulate_lines(loaded.programme, lines, case.until_ms, others=others)
    return CaseOutcome(case, tuple(differences(case.expect, simulation.document())), tuple(_notes(case, simulation)))


def _is_list(path: Path) -> bool:
    problems = Problems(str(path))
    text = text_in(path, problems)
    return text is not None and isinstance(read_tree(text, problems), Sequence)


def _tested(path: Path) -> Loaded:
    loaded = load_file(path)
    if loaded.programme is None:
        raise BadProgramme(str(path), loaded.problems)
    refusal = refused(loaded, str(path))
    if refusal is not None:
        raise InputError(refusal)
    return loaded


def _beside(path: Path) -> list[Path]:
    """Return the file of cases next to a programme: its own, or else the one that programmes of the folder share."""
    names = (_name_beside(path), SHARED_NAME)
    return [file for name in names if (file := path.with_name(name)).exists()][:1]


def _name_beside(path: Path) -> str:
    return f"{path.stem}{SUFFIX}"


def _read(path: Path) -> tuple[tuple[Case, ...], tuple[Problem, ...]]:
    problems = Problems(str(path))
    text = text_in(path, problems)
    tree = None if text is None else read_tree(text, problems)
    if text is not None and tree is None and not problems.any_error:
        problems.error(NOWHERE, Code.MISSING_VALUE, 'the file is empty; begin with "- id: …"')
    cases = () if tree is None else CaseReader(str(path), problems).cases(tree)
    return cases, problems.in_order()


def _doubled(cases: list[Case]) -> list[Problem]:
    """Return a problem for each id that stands in two files; the reader of a file reports those within it."""
    first_of: dict[str, Case] = {}
    doubled: list[Problem] = []
    for case in cases:
        first = first_of.setdefault(case.id, case)
        if first.file != case.file:
            problems = Problems(case.file)
            message = f'there is a case "{shown(case.id)}" in {first.file}:{first.line}; rename one'
            problems.error(Place(case.line, 1), Code.DUPLICATE_VALUE, message)
            doubled += problems.in_order()
    return doubled


def _programme_of(case: Case, tested: Loaded | None) -> Loaded:
    """Return the programme that judges a case: its own, or the tested one."""
    if case.programme is not None:
        return _brought(case.programme, case, f"programme of {case.id}")
    if tested is not None:
        return tested
    problems = Problems(case.file)
    message = f'case "{shown(case.id)}" has no "programme"; add it, or test the programme that the file belongs to'
    problems.error(Place(case.line, 1), Code.MISSING_FIELD, message)
    return Loaded(None, problems.in_order())


def _others_of(case: Case) -> dict[str, Loaded]:
    """Return the further programmes that a case brings along, by name."""
    return {name: _brought(node, case, f"{name} of {case.id}") for name, node in case.others.items()}


def _brought(node: Node, case: Case, name: str) -> Loaded:
    """Return a programme that stands in a case, as a mapping or as a text."""
    if isinstance(node, Scalar):
        return load_programme(node.text, f"{case.file} ({name})")
    return load_tree(node, case.file)


def _refuse_unknown(only: List[str], ids: List[str]) -> None:
    """Refuse an id that no case has."""
    for identifier in only:
        if identifier not in ids:
            near = nearest(identifier, ids)
            hint = f'did you mean "{near}"?' if near else f"there are {names_like(identifier, ids)}"
            raise InputError(f'no case has the id "{shown(identifier)}"; {hint}')


def _notes(case: Case, simulation: Simulation) -> list[str]:
    """Name events that were set aside though the case does not expect it."""
    quarantined = case.expect.get("quarantined")
    expected = quarantined if isinstance(quarantined, dict) else {}
    return [
        f"{event.file}:{event.line}: event {event.event_id} was set aside as {event.reason}: {event.message}"
        for event in simulation.quarantined
        if event.event_id not in expected
    ]

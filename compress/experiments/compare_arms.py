"""Student against control in anyone's loop, over seeds and examples."""

import json
import logging
import operator
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from featherpress.compress.distillation.placebos import PLACEBOS
from featherpress.compress.runtime.fingerprints import fingerprint
from featherpress.errors import DataError, TrainingError, UsageError
from featherpress.files import write_json
from featherpress.verdicts import Claim, Scores, Verdict

if TYPE_CHECKING:
    from featherpress.records.comparison import Comparison as ComparisonRecord

logger = logging.getLogger("featherpress")

_SCHEMA = "featherpress.arms/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What student and control scored seed by seed, their difference with its interval, and what it shows.

    `placebos` has the verdict on each beside the control, adjusted for their number by Holm; `knowledge` is what
    remains to the teacher: the student less the best placebo, in a sentence.
    """

    verdict: Verdict
    sentence: str
    difference: float
    low: float
    high: float
    confidence: float
    metric: str
    covers: tuple[str, ...]
    seeds: tuple[int, ...]
    examples: int
    v_seeds: float | None
    v_examples: float
    df: float | None
    method: str
    student: tuple[float, ...]
    control: tuple[float, ...]
    placebos: Mapping[str, Mapping[str, Any]]
    knowledge: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON holds it."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


def compare_arms(
    build: Callable[[int], nn.Module],
    train: Callable[[nn.Module, str, int], object],
    score: Callable[[nn.Module], Any],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    out: Path | str | None = None,
    metric: str = "score",
    confidence: float = 0.95,
    placebos: Sequence[str] = (),
) -> Comparison:
    """Train a student with its teacher and without, for every seed, and compare them.

    `build(seed)` returns a student. `train(student, arm, seed)` trains it in place: `arm` is "student", "control" or
    the name of a placebo, which a Distiller takes as its `placebo`; "compute" is the control, trained for longer.
    `score(student)` returns one value per example, higher is better; or a pair of records, one per example, and a
    function from a list of them to the score, for metrics that are no mean. All examples are the same for all models.
    Before each call of `build` and `train` the random states of torch, numpy and Python are set to the seed.

    With `out`, values per example are kept in `arms.json`, so that a call that was interrupted goes on where it
    stopped; records are not. In the end there is `comparison.json`, which `featherpress report` writes up.

    Errors: `UsageError` for a `build` that differs between arms, or from that of results that are kept, for a `train`
    that does the same for two arms, for fewer than one seed, unknown placebos, and a confidence not between 0 and 1;
    `TrainingError` for weights that are not finite; `DataError` for scores that are not, or not of the same examples.
    """
    seeds = [operator.index(seed) for seed in seeds]  # numpy's too
    if not seeds or len(set(seeds)) != len(seeds):
        raise UsageError(f"expected seeds, each once, got {seeds}")
    if not 0 < confidence < 1:
        raise UsageError(f"`confidence` lies between 0 and 1, got {confidence}")
    unknown = [name for name in placebos if name not in PLACEBOS]
    if unknown:
        raise UsageError(f"no placebo is named {unknown[0]!r}; there are {', '.join(PLACEBOS)}")
    arms = ["student", "control", *dict.fromkeys(placebos)]
    found = _Results(Path(out) if out is not None else None, metric)
    try:
        _train_arms(build, train, score, found=found, arms=arms, seeds=seeds)
    except KeyboardInterrupt:
        logger.warning("%s", found.kept())
        raise
    record = _record(found, arms, tuple(seeds), metric, confidence)
    if out is not None:
        record.save(Path(out) / "comparison.json")
    logger.info("%s", record.sentence)
    return _of_record(record)


def _train_arms(
    build: Callable[[int], nn.Module],
    train: Callable[[nn.Module, str, int], object],
    score: Callable[[nn.Module], Any],
    *,
    found: "_Results",
    arms: Sequence[str],
    seeds: Sequence[int],
) -> None:
    """Train and score every arm of every seed that has no scores yet."""
    from featherpress.compress.runtime.progress import Milestones  # noqa: PLC0415 (brings rich)

    done = sum(found.has(arm, seed) for seed in seeds for arm in arms)
    progress = Milestones(total=len(seeds) * len(arms), done=done)
    for seed in seeds:
        start = ""
        ended: dict[str, str] = {}
        for arm in arms:
            _seed_everything(seed)
            if "torch._dynamo" in sys.modules:
                torch.compiler.reset()  # compiled code of the arm before would not see this one's hooks
            student = build(seed)
            own = fingerprint(student)
            start = start or own
            if own != start:
                raise UsageError(
                    f"build({seed}) gave {arm} other weights than {arms[0]}, so that they would not differ in the "
                    "teacher alone; draw all of a student's weights from the seed"
                )
            found.begin(seed, own)
            if found.has(arm, seed):
                continue
            progress.show(f"{arm}, seed {seed}")
            _seed_everything(seed)
            train(student, arm, seed)
            if not all(weight.isfinite().all() for weight in student.parameters()):
                raise TrainingError(
                    f"{arm}, seed {seed}: weights are not finite after train(); lower its learning rate"
                )
            twin = ended.setdefault(fingerprint(student), arm)
            if twin != arm:
                raise UsageError(
                    f"{arm}, seed {seed}: train() ends with the very weights of {twin}: it does the same for both arms"
                )
            student.eval()
            with torch.no_grad():
                found.add(arm, seed, score(student))
            scored = f"{arm}, seed {seed}: {found.metric} {found.score(arm, seed):.3f}"
            logger.info("%s", scored)
            progress.advance(scored)


class _Results:
    """The scores of every arm and seed so far, kept in a file where there is a folder."""

    def __init__(self, folder: Path | None, metric: str) -> None:
        self.file = None if folder is None else folder / "arms.json"
        self._values: dict[tuple[str, int], Any] = {}
        self._starts: dict[int, str] = {}
        self._statistic: Callable[[list[Any]], float] | None = None
        self.metric = metric
        if self.file is not None and self.file.exists():
            content = json.loads(self.file.read_text(encoding="utf-8"))
            if content.get("schema") != _SCHEMA or content.get("metric") != metric:
                raise UsageError(f"{self.file} holds another comparison; name another folder")
            for row in content["done"]:
                self._values[row["arm"], row["seed"]] = row["values"]
                self._starts[row["seed"]] = row["start"]
            logger.info("%s: %d trainings are done already", self.file, len(self._values))

    def begin(self, seed: int, weights: str) -> None:
        """Note the hash of the weights that a seed's students start from.

        Errors: `UsageError` where those of the results that are kept started from others.
        """
        if self._starts.setdefault(seed, weights) != weights:
            raise UsageError(f"{self.file} holds results of another build({seed}); name another folder")

    def kept(self) -> str:
        """Say what an interruption leaves."""
        if self.file is None or self._statistic is not None:
            why = "without `out`" if self.file is None else "records, unlike one value per example,"
            return f"stopped; {why} nothing is kept"
        return f"stopped; {len(self._values)} trainings are kept in {self.file}, and the same call goes on"

    def has(self, arm: str, seed: int) -> bool:
        return (arm, seed) in self._values

    def add(self, arm: str, seed: int, scored: Any) -> None:
        if isinstance(scored, tuple) and len(scored) == 2 and callable(scored[1]):
            values, self._statistic = list(scored[0]), scored[1]
        else:
            try:
                array = np.asarray(scored.cpu().double() if isinstance(scored, torch.Tensor) else scored, np.float64)
            except (TypeError, ValueError) as error:
                raise DataError(f"score() gives a number per example; {arm}, seed {seed}: {error}") from error
            if array.ndim != 1 or not np.isfinite(array).all():
                got = array.shape if array.ndim != 1 else "NaN or infinity"
                raise DataError(f"score() gives a finite value per example; {arm}, seed {seed}, got {got}")
            values = array.tolist()
        self._values[arm, seed] = values
        if self.file is not None and self._statistic is None:
            done = [
                {"arm": arm, "seed": seed, "start": self._starts[seed], "values": values}
                for (arm, seed), values in self._values.items()
            ]
            write_json(self.file, {"schema": _SCHEMA, "metric": self.metric, "done": done})

    def scores(self, arm: str, seeds: Sequence[int]) -> Scores:
        rows = [self._values[arm, seed] for seed in seeds]
        if len({len(row) for row in rows}) != 1:
            raise DataError(f"the models of {arm} were scored on different numbers of examples")
        if self._statistic is None:
            return Scores.of(rows)
        metrics = tuple(_resampled(row, self._statistic) for row in rows)
        return Scores(metrics=metrics, objects=np.ones(len(rows[0]), np.int64))

    def score(self, arm: str, seed: int) -> float:
        return float(self.scores(arm, [seed]).observed()[0])


def _resampled(records: Sequence[Any], statistic: Callable[[list[Any]], float]) -> Callable[[Any], Any]:
    """Return the score of resampled sets of records; weights (sets, examples) -> (sets,)."""
    rows = range(len(records))
    return lambda weights: np.array(
        [statistic([records[row] for row in np.repeat(rows, times.astype(int))]) for times in weights]
    )


def _record(
    found: _Results, arms: Sequence[str], seeds: tuple[int, ...], metric: str, confidence: float
) -> "ComparisonRecord":
    from featherpress.compress.evaluation import comparison as sides  # noqa: PLC0415 (brings pydantic)
    from featherpress.records.comparison import Comparison as ComparisonRecord  # noqa: PLC0415
    from featherpress.records.evaluation import Metric  # noqa: PLC0415

    scores = {arm: found.scores(arm, seeds) for arm in arms}
    claim = Claim(metric=metric, unit="examples")
    main = sides.compare(baseline=scores["control"], candidate=scores["student"], claim=claim, confidence=confidence)
    fields = {
        "metric": Metric(key=metric, name=metric),
        "unit": claim.unit,
        "seeds": seeds,
        "control": sides.make_arm(main.baseline),
        "distilled": sides.make_arm(main.candidate),
        "difference": main.difference,
        "verdict": main.verdict,
        "sentence": main.sentence,
        "others": sides.compare_others(scores, claim, confidence=confidence),
        "knowledge": sides.compare_knowledge(scores, PLACEBOS, claim, confidence=confidence),
    }
    return ComparisonRecord.model_validate(fields)


def _of_record(record: "ComparisonRecord") -> Comparison:
    found = record.difference
    return Comparison(
        verdict=record.verdict,
        sentence=record.sentence,
        difference=found.mean,
        low=found.low,
        high=found.high,
        confidence=found.confidence,
        metric=record.scored_by.name,
        covers=found.covers,
        seeds=record.seeds,
        examples=found.examples,
        v_seeds=found.v_seeds,
        v_examples=found.v_examples or 0.0,
        df=found.df,
        method=found.method,
        student=record.distilled.scores,
        control=record.control.scores,
        placebos={
            arm.name: {
                "scores": list(arm.scores.scores),
                "difference": arm.difference.mean,
                "low": arm.difference.low,
                "high": arm.difference.high,
                "verdict": arm.verdict,
                "p": arm.p,
            }
            for arm in record.others
        },
        knowledge=record.knowledge.sentence if record.knowledge else "",
    )


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (what a user's own loop draws from)
    torch.manual_seed(seed)

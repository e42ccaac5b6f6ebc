"""The trainer: one loop for plain training and for distillation, for one process and for many."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import torch
from accelerate.utils import broadcast
from torch import Tensor, nn

from featherpress.compress.data import Batch, Crops, batches
from featherpress.compress.data.crops.sampling import batch_lengths, batches_per_epoch
from featherpress.compress.distillation.step import Step
from featherpress.compress.recipes import ScheduleRecipe
from featherpress.compress.runtime.devices import open_accelerator
from featherpress.compress.runtime.distributed import average_gradients, gather_processes
from featherpress.compress.runtime.run_folder import TrainingFolder
from featherpress.compress.tasks.base import Task
from featherpress.compress.training.checkpoints import latest_state, save_state
from featherpress.compress.training.distilling import Distilling
from featherpress.compress.training.ema import MovingAverage
from featherpress.compress.training.freezing import freeze, normalisations
from featherpress.compress.training.training_log import TrainingLog, open_log
from featherpress.errors import StoppedError, TrainingError
from featherpress.models import load_weights, save_weights
from featherpress.stopping import defer_signals, exit_code_of

logger = logging.getLogger("featherpress")


@dataclass(slots=True)
class _Position:
    """How far a run is: steps done, epochs evaluated, the best score so far, and evaluations since then."""

    step: int = 0
    epochs: int = 0
    best: float = field(default=-1.0)
    stale: int = 0


class Trainer:
    """Train a model by a schedule. Everything is written into a folder, from which training resumes.

    `evaluate` scores the averaged model; `belongs_to` names its run and its place there, and states of others are
    refused; a `distiller` turns training into distillation and changes nothing else:
    without one the same steps run in the same order.
    """

    def __init__(
        self,
        model: nn.Module,
        crops: Crops[Any],
        folder: TrainingFolder,
        *,
        schedule: ScheduleRecipe,
        label: str,
        task: Task,
        distiller: Distilling | None = None,
        may_stop: bool = True,
        evaluate: Callable[[Any], float] | None = None,
        metadata: Mapping[str, str] | None = None,
        belongs_to: str = "",
    ) -> None:
        self.schedule, self.crops, self.folder = schedule, crops, folder
        self.label, self.evaluate, self.metadata, self.belongs_to = label, evaluate, metadata, belongs_to
        sampler = crops.sampler
        self.per_batch = sampler.batch_lengths(schedule.batch_size)
        self.accelerator = open_accelerator(
            precision=schedule.precision, accumulate=schedule.accumulate, images=self.per_batch
        )
        self.per_epoch = batches_per_epoch(sampler.labelled, schedule.batch_size, sampler.sizes) // schedule.accumulate
        if self.per_epoch == 0:
            wanted = sum(batch_lengths(schedule.batch_size, sampler.sizes)) * schedule.accumulate
            raise TrainingError(f"{sampler.labelled} images do not fill one batch of {wanted}")
        self.total = schedule.epochs * self.per_epoch
        layout = torch.channels_last if schedule.channels_last else torch.contiguous_format
        model = model.to(self.accelerator.device, memory_format=layout)  # type: ignore[call-overload]
        self._frozen = freeze(model, schedule.freeze)
        if schedule.freeze_statistics:
            self._frozen += normalisations(model)
        self.average = MovingAverage(model, schedule.ema)
        self.task, self.distiller, self.may_stop = task, distiller, may_stop
        parts = [model, distiller.kd.adapters] if distiller else [model]
        weights = [weight for part in parts for weight in part.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(
            weights,
            lr=schedule.learning_rate,
            weight_decay=schedule.weight_decay,
            # One pass over memory instead of ten; with a scaler's losses it would skip steps without saying so.
            fused=schedule.precision != "fp16",
        )
        self.scheduler = self._build_cycle(optimizer)
        # Not wrapped: several processes average their gradients, and a weight that no loss reaches is no obstacle.
        self.model = self.accelerator.prepare_model(model, evaluation_mode=True)
        self.optimizer = self.accelerator.prepare_optimizer(optimizer)
        self.position = _Position()
        self._losses: list[float] = []  # the task's, of the epoch at hand
        self._saved = self._began = 0.0  # when the last state was saved, and the step at hand began

    @property
    def plain(self) -> Any:
        """The model itself, without what accelerate wraps around it."""
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    def run(self) -> nn.Module:
        """Train to the end and return the averaged model; one that is scored already is read.

        Errors: `TrainingError` when a loss is not finite, when the disk is full, or when told to stop; the last good
        state is kept and `--resume` goes on from it.
        """
        if self.folder.scored:
            latest_state(self.folder, self.belongs_to)
            logger.info("%s: trained already", self.label)
            if self.distiller:
                self.distiller.kd.close()
            load_weights(self.average.model, self.folder.last_weights)
            return self.average.model
        with self._open() as log:
            self._saved = started = time.monotonic()
            first = self.position.step
            while self._goes_on(log):
                self._began = time.monotonic()
                epoch, start = divmod(self.position.step, self.per_epoch)
                for parts in self._steps(epoch, start):
                    with defer_signals():  # a step, its row and its state are one
                        logged = (self.position.step + 1) % self.schedule.log_every == 0
                        terms = self._step(parts, measure=logged)
                        self._note(log, terms, epoch, images=sum(map(len, parts)), logged=logged)
            self._save()
            self._write_weights(self.folder.last_weights)
            if self.position.step > first and self.evaluate is not None:
                minutes, seconds = divmod(round(time.monotonic() - started), 60)
                logger.info("%s: %d steps in %d min %02d s", self.label, self.position.step - first, minutes, seconds)
        # BatchNorm's statistics are each process's own: all return what the first one saved.
        broadcast(list(self.average.model.state_dict().values()))
        return self.average.model

    def _note(self, log: TrainingLog, terms: Mapping[str, float], epoch: int, *, images: int, logged: bool) -> None:
        """Keep what a step of so many images leaves: its row, and the state where one is due."""
        self.position.step += 1
        now = time.monotonic()
        speed, self._began = images * self.accelerator.num_processes / (now - self._began), now
        log.progress.advance(loss=terms["loss"], images_per_second=speed)
        self._losses.append(terms["task"])
        if logged or self.position.step == self.total:
            rate = float(self.scheduler.get_last_lr()[0])
            row = {"step": self.position.step, "epoch": epoch, "lr": rate, "images_per_second": speed}
            log.record(row | dict(terms))
        if time.monotonic() - self._saved >= self.schedule.save_every:
            self._save()
            self._saved = time.monotonic()

    @contextmanager
    def _open(self) -> Iterator[TrainingLog]:
        """Go on from the last state, and open what a run writes to; a signal keeps what is done."""
        self._restore()
        # Accelerate keeps one number for all of a process, that of the trainer built last.
        self.accelerator.gradient_accumulation_steps = self.schedule.accumulate
        opened = open_log(
            self.folder.path,
            self._columns(),
            label=self.label,
            step=self.position.step,
            evaluated=self.position.epochs * self.per_epoch,
            total=self.total,
            leads=self.accelerator.is_main_process,
        )
        with opened as log, closing(self.distiller.kd) if self.distiller else nullcontext():
            self._set_modes()
            try:
                yield log
            except KeyboardInterrupt as stop:
                with defer_signals(drop=True):
                    self._save()
                sentence = f"stopped at step {self.position.step} of {self.total}"
                raise StoppedError(f"{sentence}; the same command with --resume goes on", exit_code_of(stop)) from None

    def _columns(self) -> tuple[str, ...]:
        """Name the columns of `metrics.csv`."""
        taught = (*self.distiller.columns, "ramp", "kd_ratio") if self.distiller else ()
        return (
            "step",
            "epoch",
            "lr",
            "images_per_second",
            "loss",
            "task",
            *self.task.terms,
            *taught,
            f"val_{self.task.metric.key}",
        )

    def _set_modes(self) -> None:
        self.model.train()
        for module in self._frozen:
            module.eval()

    def _goes_on(self, log: TrainingLog) -> bool:
        """End the epoch that is done, if one is, and return whether another one is trained."""
        epoch, start = divmod(self.position.step, self.per_epoch)
        if start == 0 and epoch > self.position.epochs:
            score = self._score(epoch - 1)
            with defer_signals():
                self._end_epoch(log, epoch - 1, score)
                self.position.epochs = epoch
                self._losses.clear()
        return self.position.step < self.total and not self._is_stale()

    def _is_stale(self) -> bool:
        """Return whether evaluations have stopped getting better, and log it."""
        patience = self.schedule.patience
        if not patience or self.position.stale < patience or not self.may_stop:
            return False
        place = f"{self.label}: stopped early after step {self.position.step} of {self.total}"
        logger.info("%s: %d evaluations without a score above %.3f", place, self.position.stale, self.position.best)
        return True

    def _steps(self, epoch: int, start: int) -> Iterator[tuple[Batch, ...]]:
        """Yield this process's share of every step of an epoch, from step `start` on, as batches to accumulate."""
        rank, world, parts = self.accelerator.process_index, self.accelerator.num_processes, self.schedule.accumulate
        order = self.crops.sampler.epoch_batches(epoch, self.schedule.batch_size)[: self.per_epoch * parts]
        loader = batches(
            self.crops,
            [keys[rank::world] for keys in order],
            start=start * parts,
            workers=self.schedule.workers,
            pin_memory=self.accelerator.device.type == "cuda",
        )
        return zip(*[loader] * parts, strict=True)

    def _step(self, parts: Sequence[Batch], *, measure: bool) -> dict[str, float]:
        """Take one step and return every weighted term, averaged over batches and processes, as a number."""
        # Where batches are pinned, copies need not wait.
        parts = [part.to(self.accelerator.device, non_blocking=True) for part in parts]
        targets = [self.task.assign_targets(part, self.plain) for part in parts]
        normalizers = self._normalizers(targets)
        ratio, rows = {}, []
        for number, (part, target) in enumerate(zip(parts, targets, strict=True), start=1):
            with self.accelerator.accumulate(self.model):
                with self.accelerator.autocast():
                    terms, context, outputs, step = self._forward(part, target, normalizers)
                task = loss = torch.stack(list(terms.values())).sum()
                if step is not None and self.distiller is not None:
                    loss = task + self.distiller.scale * step.loss(outputs, task=task, **context)
                    if step.parts and measure and number == len(parts):
                        ratio = {"kd_ratio": step.gradient_ratio(task)}
                self.accelerator.backward(loss)
            kd_terms = {f"kd_{name}": value for name, value in step.parts.items()} if step else {}
            values = (*terms.values(), *kd_terms.values(), task, loss)
            rows.append(torch.stack([value.detach().float() for value in values]))
        numbers = self._finite_means((*terms, *kd_terms, "task", "loss"), torch.stack(rows), parts)
        average_gradients([weight for weight in self.plain.parameters() if weight.requires_grad])
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.schedule.clip or math.inf)
        if not self.accelerator.scaler and not norm.isfinite():  # a scaler of float16 skips such steps
            raise TrainingError(
                f"the gradient is not finite at step {self.position.step + 1}, although every loss is: a loss has a "
                "root or a quotient where it is 0; the last good state is kept"
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        # Where float16 overflowed, no step was taken, and no rate is used up.
        if not self.optimizer.step_was_skipped:
            self.scheduler.step()
        self.average.update(self.plain)
        ramp = {"ramp": self.distiller.ramp(self.position.step, self.total)} if self.distiller else {}
        return numbers | ratio | ramp

    def _normalizers(self, targets: Sequence[Any]) -> Tensor:
        """Average the normalizers over a step's batches and processes, so that many small batches equal one."""
        own = torch.stack([self.task.normalizers(each) for each in targets])
        gathered = gather_processes(own).flatten(0, 1)
        return gathered.sum(dim=0).clamp(min=1) / len(gathered)

    def _finite_means(self, names: Sequence[str], rows: Tensor, parts: Sequence[Batch]) -> dict[str, float]:
        """Average terms (batches, terms) over batches and processes; stop where one is not finite, on every process.

        Errors: `TrainingError` that names the term, the step and the images.
        """
        gathered = gather_processes(rows).flatten(0, 1)
        means: list[float] = gathered.mean(dim=0).tolist()
        bad = [name for name, value in zip(names, means, strict=True) if not abs(value) < float("inf")]
        if not bad:
            return dict(zip(names, means, strict=True))
        keys = gather_processes(torch.stack([part.keys for part in parts])).flatten(0, 1)
        first = int((~gathered[:, names.index(bad[0])].isfinite()).nonzero()[0])
        images = ", ".join(self.crops.dataset.name(int(index)) for index in keys[first, :4, 0])
        teachers = " the task's own terms are finite: look at what the teacher says of these images, or"
        raise TrainingError(
            f"the {bad[0]} term became {gathered[first, names.index(bad[0])]} at step {self.position.step + 1} "
            f"(images {images}, ...); the last good state is kept:"
            f"{teachers if bad[0].startswith('kd_') else ''} start again with a lower "
            "learning rate (--overwrite), or lower it and go on: --resume --allow-changed --set schedule.learning_rate="
            f"{self.schedule.learning_rate / 2:g}"
        )

    def _forward(
        self, batch: Batch, targets: Any, normalizers: Tensor
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Any], Mapping[str, Tensor], Step | None]:
        """Return the task's weighted terms, what distillation losses ask for, the outputs, and the Distiller's step."""
        images = self.task.images(batch, self.plain)
        if self.schedule.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        begun: AbstractContextManager[Step | None] = nullcontext()
        if self.distiller:
            begun = self.distiller.step(images, batch.keys, step=self.position.step, total=self.total)
        with begun as step:
            outputs = self.task.forward(self.model, images, batch, targets)
        loss = self.task.compute_loss(outputs, batch, targets, normalizers)
        return loss.terms, loss.context, outputs, step

    def _score(self, epoch: int) -> float | None:
        """Evaluate when it is time, on the first process, and share the score with the others."""
        every = self.schedule.evaluate_every
        if not every or (epoch + 1) % every or self.evaluate is None:
            return None
        score = torch.zeros((), dtype=torch.float64, device=self.accelerator.device)
        if self.accelerator.is_main_process:
            score += self.evaluate(self.average.model)
        return float(gather_processes(score).sum())

    def _end_epoch(self, log: TrainingLog, epoch: int, score: float | None) -> None:
        """Record the epoch's score, and keep the best weights."""
        if score is None:
            return
        name, column = self.task.metric.name, f"val_{self.task.metric.key}"
        log.record({"step": self.position.step, "epoch": epoch, column: score})
        # The task's loss alone, which student and control have in common; none is known right after a resume.
        loss = f", loss {fmean(self._losses):.2f}" if self._losses else ""
        count = f" on up to {self.schedule.evaluate_images} images" if self.schedule.evaluate_images else ""
        place = f"{self.label}: epoch {epoch + 1} of {self.schedule.epochs}{loss}"
        logger.info("%s, %s %.3f%s", place, name, score, count)
        if score > self.position.best:
            self._write_weights(self.folder.best_weights)
            self.position.best, self.position.stale = score, 0
        else:
            self.position.stale += 1

    def _write_weights(self, path: Any) -> None:
        if self.accelerator.is_main_process:
            save_weights(self.average.model, path, metadata=self.metadata)

    def _save(self) -> None:
        """Keep everything the next step reads."""
        if not self.accelerator.is_main_process:
            return
        state = {
            "belongs_to": self.belongs_to,
            "step": self.position.step,
            "epochs": self.position.epochs,
            "best": self.position.best,
            "stale": self.position.stale,
            "model": self.plain.state_dict(),
            "average": self.average.model.state_dict(),
            "updates": self.average.updates,
            "distiller": self.distiller.kd.state_dict() if self.distiller else {},
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else {},
            "random": torch.get_rng_state(),
        }
        save_state(self.folder, self.position.step, state)

    def _restore(self) -> None:
        state = latest_state(self.folder, self.belongs_to)
        if state is None:
            return
        try:
            self.plain.load_state_dict(state["model"])
            self.average.model.load_state_dict(state["average"])
            if self.distiller:
                self.distiller.kd.load_state_dict(state["distiller"])
            self._restore_optimizer(state)
        except (RuntimeError, ValueError, KeyError) as error:
            raise TrainingError(
                f"the state of the {self.label} after step {state['step']} is of another model: "
                f"{str(error).splitlines()[0]}; start again with --overwrite"
            ) from error
        self.average.updates = state["updates"]
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        self.position = _Position(state["step"], state["epochs"], state["best"], state["stale"])
        logger.info("%s: going on after step %d of %d", self.label, self.position.step, self.total)

    def _restore_optimizer(self, state: Mapping[str, Any]) -> None:
        """Take the optimizer's averages and the place in the cycle; rates and bounds are the schedule's own."""
        groups = self.scheduler.optimizer.param_groups
        own = [{key: value for key, value in group.items() if key != "params"} for group in groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, values in zip(groups, own, strict=True):
            group.update(values)
        done = min(state["scheduler"]["last_epoch"], self.total)
        self.scheduler = self._build_cycle(self.scheduler.optimizer, done=done)

    def _build_cycle(self, optimizer: torch.optim.Optimizer, *, done: int = 0) -> torch.optim.lr_scheduler.OneCycleLR:
        steps, schedule = self.total + 1, self.schedule
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=schedule.learning_rate,
            total_steps=steps,
            # Below two steps of warm-up it divides by zero.
            pct_start=max(schedule.warmup, 2 / steps),
            last_epoch=done - 1,
        )

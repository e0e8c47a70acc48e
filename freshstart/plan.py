"""What a scale will take, before anything runs: work, hours, memory and disk by stage, and what comes from outside.

Nothing is guessed that can be measured in a minute: text of this machine is read, deduplicated, scored, tokenised by
the rooms themselves; the scale's model takes training steps in the project's own loop and writes samples with its own
sampler. Large models are measured on fewer rows and a shorter context; their steps are scaled up by the FLOP
of a token. What is not measured is said with its source: bytes a character or token, and the seconds that the
statistics of an evaluation take, are those of the quick run. The characters of a corpus are the most that it may have.

FLOP of a position, forward and backward: 6 (P - E) + 12 L d T for P parameters of which E are embeddings that no
product reads, L layers, width d and context T (Chowdhery et al. 2022, app. B).
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from itertools import accumulate
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from freshstart import corpora, evaluation, files, objectives, outside, params, scorers, tokens, training
from freshstart.corpora import CorpusSettings, Document, build, synthetic
from freshstart.errors import InputError
from freshstart.finetuning import MOST_EPOCHS
from freshstart.names import arm_name
from freshstart.objectives import TrainScores
from freshstart.pool import processors
from freshstart.running import gpu_names
from freshstart.sampling.sampler import Decoding, sample
from freshstart.scoring.segments import SEGMENTERS
from freshstart.tokens import CONTROLS, Control, tokenizer
from freshstart.tokens.store import Stream
from freshstart.training.launch import MICRO_BATCH, Group
from freshstart.training.loop import Loop
from freshstart.training.memory import USABLE, StepMemory, step_memory
from freshstart.training.rows import Rows
from freshstart.training.run import Run

GIB = 2**30
SECONDS = 2.0  # a rate is measured for so long, after one call that warms up
SAMPLE = 120_000  # characters of text that the rates of the data stages are measured on
LABELLED = 1_500  # rows that a scorer learns from while it is measured
LARGE = 1e8  # FLOP of a position from which a CPU measures one short row
NAMED_VOCABULARY, NAMED_TOKENS = 50_260, 0.25  # of a tokenizer that is not trained here: ids, tokens a character
# Bytes of the quick run: of a character in the corpus, scored, in the cache of scores; of a token; of a sample
CORPUS_BYTES, SCORED_BYTES, CACHE_BYTES, TOKEN_BYTES, SAMPLE_BYTES = 0.33, 0.45, 0.17, 3.4, 280
STATISTICS = 0.012  # seconds a sample (quick run): judges, diversity, look-ups in the training text, intervals
SHAPES = {"openai-community/gpt2-xl": {"n_layer": 48, "n_embd": 1600, "n_head": 25}}  # of what may not be at hand
DATA_GIB = 0.35  # a process of the data stages
MODELS = "from transformers import AutoModelForCausalLM, GPT2LMHeadModel"
RESIDENT = f"import psutil; {MODELS}; print(psutil.Process().memory_info().rss)"


@dataclass(frozen=True)
class Machine:
    """What is at hand: processors, memory, free disk, and the memory of one GPU (0 where there is none)."""

    processors: int
    memory: float  # GiB
    disk: float  # GiB
    gpus: int
    gpu_memory: float  # GiB

    @classmethod
    def here(cls) -> Machine:
        import psutil

        gpu = torch.cuda.get_device_properties(0).total_memory / GIB if torch.cuda.is_available() else 0.0
        memory, disk = psutil.virtual_memory().total / GIB, shutil.disk_usage(".").free / GIB
        return cls(processors(), memory, disk, len(gpu_names()) if gpu else 0, gpu)

    def room(self, on_gpu: bool) -> float:
        """GiB that a process may take."""
        return self.gpu_memory if on_gpu else self.memory

    def __str__(self) -> str:
        gpus = f"{self.gpus} GPUs of {self.gpu_memory:.0f} GiB" if self.gpus else "no GPU"
        return f"{self.processors} processors, {self.memory:.1f} GiB of memory, {self.disk:.0f} GiB free, {gpus}"


@dataclass(frozen=True)
class Row:
    """A stage: how often it runs, its work by unit, seconds in all (of a processor, or of a GPU where ``on_gpu``), GiB
    of memory of one process, GiB on disk; and the setting to change where its memory is too small."""

    stage: str
    runs: int
    work: dict[str, float]
    seconds: float
    memory: float = DATA_GIB
    disk: float = 0.0
    on_gpu: bool = False
    setting: str = "fewer documents in corpus.<task>"


@dataclass(frozen=True)
class Rates:
    """Of one model: seconds of a position trained on, of a step beside its positions, of a position read and of a token
    written; and the memory of a step."""

    parameters: int
    flop: float  # of a position, forward and backward
    train: float
    step: float
    read: float
    write: float
    memory: StepMemory


def plan(scale: str | None = None) -> None:
    """Print the table of a scale (default: that of params.yaml); raises InputError for what can not run here."""
    everything = params.load(scale)
    root, machine, needed = everything.root, Machine.here(), outside.things(everything)
    cells = len(root.tasks) * len(root.seeds) * (len(root.objectives) + len(root.arms))
    print(f"{everything.file}: {cells} models of {', '.join(root.tasks)}\nhere: {machine}; measuring ...", flush=True)
    with measuring() as folder:
        planner = Planner(everything, folder, machine)
        rows = planner.rows()
    missing = sum(item.size or 0 for item in needed if not item.at_hand) * 10**6 / GIB
    rows.append(Row("fetched", 0, {}, 0.0, 0.0, missing))
    print(table(rows), *sorted(planner.notes), sep="\n")
    seconds = {on_gpu: sum(row.seconds for row in rows if row.on_gpu == on_gpu) for on_gpu in (False, True)}
    hours = (seconds[False] / machine.processors + seconds[True] / max(machine.gpus, 1)) / 3600
    print(f"about {hours:,.1f} hours with every processor{' and GPU' * bool(machine.gpus)} in use", *needed, sep="\n- ")
    lacking = (line for item in needed for line in outside.wrong(item.setting, item.look))
    if refused := [*too_large(rows, machine), *planner.refused, *lacking]:
        raise InputError("\n- ".join([f"{everything.file} can not run here:", *refused]))


def table(rows: list[Row]) -> str:
    """The rows and their sum, for a terminal."""
    lines = [f"{'stage':<12}{'runs':>5}  {'work':<46}{'seconds':>16}{'memory':>14}{'disk':>14}"]
    for row in [*rows, replace(merged(rows), stage="all", work={}, on_gpu=False)]:
        work = ", ".join(f"{_short(amount)} {unit}" for unit, amount in row.work.items())
        seconds = f"{row.seconds:,.0f}{' of a GPU' * row.on_gpu}"
        sizes = f"{row.memory:>10,.2f} GiB{row.disk:>10,.2f} GiB"
        lines.append(f"{row.stage:<12}{row.runs:>5}  {work:<46}{seconds:>16}{sizes}")
    return "\n".join(lines)


def too_large(rows: list[Row], machine: Machine) -> list[str]:
    """What does not fit, each with the setting to change."""
    refused = []
    for row in rows:
        there = machine.room(row.on_gpu)
        if row.memory > there:
            refused.append(f"{row.stage} needs {row.memory:.1f} GiB of memory, there are {there:.1f}: {row.setting}")
    if (disk := sum(row.disk for row in rows)) > machine.disk:
        refused.append(
            f"{disk:,.1f} GiB of disk are needed, {machine.disk:,.1f} are free: lower corpus.<task>.train_characters "
            "or train.every.snapshots"
        )
    return refused


@cache
def process_gib() -> float:
    """GiB of a process with torch and transformers, before it has a model."""
    said = subprocess.run([sys.executable, "-c", RESIDENT], capture_output=True, text=True, check=True)
    return int(said.stdout) / GIB


@cache
def named_model(name: str, revision: str | None) -> tuple[int, int] | None:
    """Parameters, and bytes of the keys and values of a position, of a model that is at hand or in ``SHAPES``; None of
    others, which count as large as the task's own."""
    from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config

    try:
        config = AutoConfig.from_pretrained(name, revision=revision, local_files_only=True)
    except (OSError, ValueError):
        if name not in SHAPES:
            return None
        config = GPT2Config(**SHAPES[name])
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return model.num_parameters(), 2 * 4 * config.num_hidden_layers * config.hidden_size


def training_gib(memory: StepMemory, rows: int, on_gpu: bool) -> float:
    """GiB of a process that trains: what its tensors take of a GPU, or what is resident on a processor."""
    step = memory.bytes(rows) / GIB
    return step if on_gpu else process_gib() + step / USABLE


def merged(rows: Iterable[Row]) -> Row:
    """One row for several of a stage: sums, and the memory of the largest."""
    rows = list(rows)
    work: Counter[str] = Counter()
    for row in rows:
        work.update(row.work)
    sums = {name: sum(getattr(row, name) for row in rows) for name in ("runs", "seconds", "disk")}
    return replace(max(rows, key=lambda row: row.memory), work=dict(work), **sums)


@contextmanager
def measuring() -> Iterator[Path]:
    """A folder for what is measured, with a state folder of its own, in which nothing says how steps are divided."""
    kept = {name: os.environ.pop(name, None) for name in ("FRESHSTART_STATE", MICRO_BATCH)}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FRESHSTART_STATE"] = str(Path(folder, "state"))
        try:
            yield Path(folder)
        finally:
            os.environ.pop("FRESHSTART_STATE")
            os.environ.update({name: value for name, value in kept.items() if value is not None})


class Planner:
    """The rows of a scale on a machine, from rates that it measures in ``folder``."""

    def __init__(self, everything: params.Params, folder: Path, machine: Machine):
        self.everything, self.root, self.folder, self.machine = everything, everything.root, folder, machine
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.on_gpu = self.device.type == "cuda"
        self.known: dict[str, Rates] = {}
        self.notes: set[str] = set()  # what a person should know of the table
        self.refused: list[str] = []  # what a stage will refuse

    def rows(self) -> list[Row]:
        tasks = [Task(self, task) for task in self.root.tasks]
        stages = [merged(rows) for rows in zip(*([*task.data(), *task.cells()] for task in tasks), strict=True)]
        elsewhere = (*self.root.benchmarks, *self.root.external.folders, *self.root.external.hub)
        self.notes.add(f"not reckoned: {', '.join(('heldout', 'warnings', 'compare', *elsewhere))}")
        runs = len(tasks) + 1 + sum(row.runs for row in stages)
        return [*stages, Row("DVC", 1, {"stages begun and ended": runs}, runs * self.start["dvc"])]

    @cached_property
    def start(self) -> dict[str, float]:
        """Processor seconds to begin: DVC with a stage, a door of the data stages, one that trains or evaluates."""
        commands = {
            "dvc": ["-m", "dvc", "repro", "--dry", "-s", f"settings@{self.root.tasks[0]}"],
            "door": ["-c", "import pyarrow, pydantic, ruamel.yaml, numpy"],
            "torch": ["-c", MODELS],
        }
        return {name: _of_children([sys.executable, *command]) for name, command in commands.items()}

    def rates(self, objective: str, numbers: Any, settings: training.TrainSettings, vocabulary: int) -> Rates:
        """Those of a model, measured once for all objectives; a value head is too small to matter."""
        needs = objectives.load(objective).needs
        shape = replace(settings, learning_rate=1, muon_learning_rate=1, batch_size=1, snapshots=(), log_every=1)
        key = files.digest([asdict(shape), vocabulary, needs.reference])
        if key not in self.known:
            if settings.precision == "bf16" and not self.on_gpu and (times := _bf16()) > 1.5:
                self.notes.add(
                    f"bf16 is emulated on these processors, a linear layer takes {times:.0f} times as long as in fp32: "
                    "set train.<task>.precision to fp32 to train here"
                )
            self.known[key] = measured(objective, numbers, settings, vocabulary, self.folder, self.device)
        return self.known[key]


class Task:
    """The rows of one task."""

    def __init__(self, planner: Planner, name: str):
        everything = planner.everything
        self.planner, self.name, self.root, self.everything = planner, name, planner.root, everything
        self.corpus = corpora.settings(everything.block("corpus", name), everything.where("corpus", name))
        block = everything.block("scorer", name)
        self.scorer, self.judge = scorers.settings_and_judge(block, everything.where("scorer", name))
        self.characters = self.corpus.train_characters + self.corpus.heldout_characters
        self.texts = _texts(self.corpus.kind, self.scorer.kind)
        self.length = sum(map(len, self.texts))
        self.tokenizer = everything.model(tokens.TokenizerSettings, "tokenizer", name)
        kinds = {of: objectives.load(of).settings for of in self.root.objectives}
        self.asked = {of: everything.model(kind, "shards", name, of) for of, kind in kinds.items()}

    def data(self) -> list[Row]:
        """The stages before training."""
        door, gib = self.planner.start["door"], 2 * self.characters / GIB  # in the workspace and in DVC's cache
        built = _seconds(self._build) / self.length
        learned, self.score, memory, on_gpu = self._scoring(self.scorer)
        judged = self._scoring(self.judge)[0] if self.judge is not None else 0.0
        begun, encoded, self.tokens_a_character = self._tokenize()
        count = self.characters * self.tokens_a_character
        kinds, shards = [objectives.load(objective).needs.stream for objective in self.asked], len(self.asked)
        streams = kinds.count("control") + kinds.count("filtered") / 2  # of tokens of their own
        text = {"characters": self.characters}
        documents = {**text, "documents": self.characters * len(self.texts) / self.length}
        kept = (SCORED_BYTES + CACHE_BYTES / 2) * gib
        token_gib = 2 * count * TOKEN_BYTES / GIB
        encode, learn = encoded * self.characters, learned + judged
        return [
            Row("corpus", 1, documents, door + built * self.characters, disk=CORPUS_BYTES * gib),
            Row("scorer", 1, {}, door + learn),
            Row("score", 1, text, door + self.score * self.characters, memory, kept, on_gpu),
            Row("tokenizer", 1, text, door + begun * self.characters, DATA_GIB + 1e-9 * min(self.characters, 2e9)),
            Row("tokens", 1, {"tokens": count}, door + encode, disk=token_gib),
            Row("shards", shards, {}, shards * door + streams * encode / 10, disk=streams * token_gib),
        ]

    def cells(self) -> list[Row]:
        """Training, what they are compared with, and evaluation, of the cells and finetuned arms."""
        everything, seeds, start = self.everything, len(self.root.seeds), self.planner.start["torch"]
        evaluate = everything.model(evaluation.EvaluateSettings, "evaluate", self.name)
        reference, on_gpu = evaluate.reference, self.planner.on_gpu
        vocabulary = self.tokenizer.vocabulary or NAMED_VOCABULARY
        base = 0.0 if on_gpu else process_gib()
        trained, evaluated, drawn = [], [], []
        arms = [(name, share) for name in self.root.finetuned for share in self.root.finetuned_from]
        for name, share in [*((name, 0.0) for name in self.asked), *arms]:
            settings = everything.model(training.TrainSettings, "train", self.name, name)
            rates = self.planner.rates(name, self.asked[name], settings, vocabulary)
            if share:
                own = asdict(everything.model(training.FinetuneSettings, "finetune", self.name, name))
                changes = {key: value for key, value in own.items() if value is not None}
                settings = replace(settings, **changes, snapshots=())
                self._arm(name, share, settings.shuffle_parts)
            positions = self.asked[name].positions * (1 - share)
            steps = positions / (settings.batch_size * settings.context)
            fit = rates.memory.fit((self.planner.machine.room(on_gpu) - base) * GIB)
            fitting = max(fit, 1) if on_gpu else settings.batch_size  # as training chooses
            _, rows = Group(0, 1, self.planner.device).share(settings.batch_size, lambda fitting=fitting: fitting)
            kept = (1 + len(settings.snapshots)) * rates.parameters * 4 * 2 / GIB
            work = {"positions": positions * seeds, "FLOP": positions * rates.flop * seeds}
            seconds = seeds * (start + positions * rates.train + steps * rates.step)
            remedy = (
                f"set {MICRO_BATCH} to {1 << (fit.bit_length() - 1)}, now {rows} rows" if fit > 0 else "a smaller model"
            )
            memory = training_gib(rates.memory, rows, on_gpu)
            trained.append(Row("train", seeds, work, seconds, memory, seeds * kept, on_gpu, remedy))

            controls = 2 if objectives.load(name).needs.stream == "control" else 1
            samples = controls * evaluate.samples
            snapshots = len(settings.snapshots) * min(evaluate.snapshot_samples, evaluate.samples)
            written = (samples + snapshots) * evaluate.max_new_tokens
            width = 2 * 4 * settings.layers * settings.width  # keys and values of a position
            reader, of_reader = named_model(reference.model, reference.revision) or (rates.parameters, width)
            larger, count = reader / rates.parameters, reference.samples * reference.tokens
            compared = 2 * count * (1 + larger)  # texts of either, read by both
            seconds = start + written * controls * rates.write + samples * STATISTICS
            seconds += (controls * evaluate.heldout_tokens + compared) * rates.read
            seconds += 2 * written / self.tokens_a_character * self.score
            cache = evaluate.batch_size * min(settings.context, 2 * evaluate.max_new_tokens) * width
            logits = 2 * evaluate.logit_gib * (rates.flop > LARGE)
            memory = base + (4 * (rates.parameters + reader) + cache) / GIB + logits
            work = {"samples": seeds * (samples + snapshots)}
            disk = 2 * work["samples"] * SAMPLE_BYTES / GIB
            remedy = f"evaluate.{self.name}.batch_size or logit_gib"
            evaluated.append(Row("evaluate", seeds, work, seeds * seconds, memory, disk, on_gpu, remedy))

            if name == evaluation.MLE:
                seconds = 2 * start + count * larger * (rates.write + rates.read)
                cache = min(evaluate.batch_size, reference.samples) * (1 + reference.tokens) * of_reader
                memory = base + (4 * reader + cache) / GIB + logits
                remedy = f"lower evaluate.{self.name}.batch_size, or a smaller reference.model there"
                drawn.append(Row("reference", seeds, {"texts": reference.samples}, seconds, memory, 0, on_gpu, remedy))
        return [merged(trained), merged(drawn), merged(evaluated)]

    def _arm(self, name: str, share: float, parts: int) -> None:
        """Refuse what finetuning will: what mle, which has begun so many equal ``parts`` of the corpus, leaves to an
        objective on a stream of its own, where that reads it too often; filtered keeps a quantile of it."""
        numbers, tokens = self.asked[name], self.corpus.train_characters * self.tokens_a_character
        begun = min(ceil(parts * share * numbers.positions / tokens) / parts, 1)
        left, need = (1 - begun) * tokens * getattr(numbers, "quantile", 1), (1 - share) * numbers.positions
        if objectives.load(name).needs.stream != "plain" and need > MOST_EPOCHS * left:
            self.planner.refused.append(
                f"{self.name}/{arm_name(name, share)}: of the {_short(left)} tokens that mle leaves, {_short(need)} "
                f"positions are more than {MOST_EPOCHS} times: raise corpus.{self.name}.train_characters"
            )

    def _build(self) -> None:
        """The corpus of the sample, as the stage makes it."""
        half = max(self.length // 2, 1)
        near = self.corpus.near_duplicates
        settings = CorpusSettings(
            kind="local", train_characters=half, heldout_characters=half, part_characters=half, near_duplicates=near
        )
        documents = [Document(text, str(number), {}) for number, text in enumerate(self.texts)]
        build.build(documents, settings, 0, self.planner.folder / "corpus")

    def _tokenize(self) -> tuple[float, float, float]:
        """Seconds a character to train a tokenizer and to use it, and tokens a character."""
        size = self.tokenizer.vocabulary or 8192
        folder, made = self.planner.folder / f"tokenizer-{self.name}", []
        settings = tokens.TokenizerSettings(vocabulary=size)
        begun = _seconds(lambda: made.append(tokenizer.make(settings, self.texts, folder)))
        counts: list[int] = []
        encoded = _seconds(lambda: counts.extend(len(ids) for ids, _ in made[0].encode(self.texts)))
        if self.tokenizer.name is not None:
            return 0.0, encoded / self.length, NAMED_TOKENS
        return begun / self.length, encoded / self.length, sum(counts) / self.length

    def _scoring(self, settings: scorers.ScorerSettings) -> tuple[float, float, float, bool]:
        """Seconds to make a scorer, seconds a character, GiB, and whether it scores on a GPU.

        Networks with weights from outside are measured on random ones of BERT-base's shape.
        """
        if settings.kind in ("detoxify", "hf_classifier"):
            return 0.0, _encoder(self.planner.device), process_gib() + 0.8, self.planner.on_gpu
        share, folder, rows = 1.0, self.planner.folder / f"scorer-{self.name}-{settings.kind}", ()
        if hasattr(settings, "labelled"):
            share = settings.rows / LABELLED
            settings = replace(settings, rows=LABELLED, labelled="synthetic")
            rows = synthetic.labelled(LABELLED, settings.noise, settings.seed)
        try:
            learned = _seconds(lambda: scorers.make(settings, folder, rows))
        except (InputError, ImportError):  # a pipeline for names, or a package for addresses, that is not at hand
            plain = {"names": None, "detectors": tuple(name for name in settings.detectors if name in _PLAIN)}
            settings = replace(settings, **plain)
            learned = _seconds(lambda: scorers.make(settings, folder, rows))
        scorer, _ = scorers.load(folder, self.name)
        documents = [(text, SEGMENTERS[settings.segments](text)) for text in self.texts]
        scorers.answers(scorer, documents[:1])
        scored = _seconds(lambda: scorers.answers(scorer, documents))
        return learned * share, scored / self.length, DATA_GIB + 0.1, False


_PLAIN = ("credential", "credit_card", "email", "phone", "social_security_number", "twitter", "url")


def measured(
    name: str, asked: Any, settings: training.TrainSettings, vocabulary: int, folder: Path, device: Any
) -> Rates:
    """The rates of a model, by steps of the training loop and samples of the sampler."""
    is_gpu, head = device.type == "cuda", 6 * settings.width * vocabulary
    is_large = 72 * settings.layers * settings.width**2 + head > LARGE
    context = 32 if is_large and not is_gpu else settings.context
    rows = 1 if is_large and not is_gpu else min(settings.batch_size, 8 if is_gpu else 16)
    chosen = replace(settings, batch_size=rows, snapshots=(), start=None, checkpoint_every=10**9)
    rng, length = np.random.default_rng(0), 64 * rows * context + 1
    ends = np.arange(10, length, 10)
    scores = np.where(rng.random(len(ends)) < 0.2, rng.random(len(ends)), 0).astype(np.float32)
    stream = Stream(rng.integers(0, vocabulary - 3, length).astype(np.uint32), ends, scores, ends[99::100])
    controls = tuple(Control(word, CONTROLS[word], vocabulary - 2 + place) for place, word in enumerate(CONTROLS))
    objective = objectives.load(name if not objectives.load(name).needs.reference else "mle")
    run = Run(
        title=name,
        settings=chosen,
        objective=objective,
        numbers=objective.resolve(asked, TrainScores(scores, np.full(len(scores), 10), scores)),
        rows=Rows(stream, context, "plan", 0),
        vocabulary=training.Vocabulary(vocabulary, vocabulary - 3, controls),
        positions=10**6 * rows * context,
        seed=0,
        output=folder / "model",
        curve=folder / "curve.csv",
    )
    loop = Loop(run, {"plan": name}, Group(0, 1, device))
    pieces, positions = loop.batch(0), rows * context
    whole = _rate(loop.step, is_gpu)
    backward = _rate(lambda: loop.forward_backward(0, pieces), is_gpu)
    step = max(whole - backward, 0.0)
    model = loop.model.eval()
    with torch.no_grad():
        inputs = pieces[0][0][:, :-1]
        read = _rate(lambda: model(input_ids=inputs, use_cache=False).logits.log_softmax(-1), is_gpu)
    count, most = (4 if is_large and not is_gpu else 256), min(context - 2, 16)
    decoding = Decoding(0.7, 0.9, most, most, vocabulary - 3, (vocabulary - 3, vocabulary - 2, vocabulary - 1))
    write = _rate(lambda: sample(model, [[0]] * count, count, decoding, 0), is_gpu)
    parameters = sum(parameter.numel() for parameter in loop.learner.parameters())
    products = parameters - settings.context * settings.width
    flops = [6 * products + 12 * settings.layers * settings.width * length for length in (context, settings.context)]
    scale = flops[1] / flops[0] / positions
    again = 4 / 3 if objectives.load(name).needs.reference else 1  # a forward pass of the model it began from
    memory = step_memory(loop.learner, settings.context, device)
    return Rates(parameters, flops[1], again * scale * backward, step, scale * read, write / count / most, memory)


def _bf16() -> float:
    """How many times as long as in fp32 a linear layer takes in bf16 on a processor, forward and backward."""

    def rate(dtype: torch.dtype) -> float:
        square = torch.ones(512, 512, dtype=dtype, requires_grad=True)
        return _rate(lambda: torch.nn.functional.linear(square, square).backward(square.detach()), False)

    return rate(torch.bfloat16) / rate(torch.float32)


def _encoder(device: Any) -> float:
    """Seconds a character of a BERT of the base shape, at 5 characters a token, real ones four fifths of a batch."""
    from transformers import BertConfig, BertModel

    is_gpu = device.type == "cuda"
    model, rows = BertModel(BertConfig()).eval().to(device), 256 if is_gpu else 2
    tokens = torch.zeros(rows, 64, dtype=torch.long, device=device)
    with torch.inference_mode():
        return _rate(lambda: model(tokens), is_gpu) / (rows * 64) / 5 / 0.8


def _texts(corpus: str, scorer: str) -> list[str]:
    """Text of this machine like a task's: sources of Python, synthetic comments, or descriptions of packages."""
    if corpus == "synthetic":
        settings = synthetic.Settings(
            kind="synthetic", documents=600, train_characters=SAMPLE, heldout_characters=1, part_characters=SAMPLE
        )
        return [document.text for document in synthetic.documents(settings, 0)]
    folder, pattern = ("stdlib", "*.py") if scorer == "pep8" else ("purelib", "*.dist-info/METADATA")
    paths = sorted(path for path in Path(sysconfig.get_paths()[folder]).glob(pattern))
    texts = [path.read_text(encoding="utf-8", errors="ignore")[:20_000] for path in paths]
    return [text for text, total in zip(texts, accumulate(map(len, texts)), strict=True) if total <= SAMPLE]


def _rate(call: Callable[[], Any], is_gpu: bool) -> float:
    """Seconds of a call, the mean over ``SECONDS`` after one that warms up; one that takes as long counts itself."""
    total, count = _seconds(call, is_gpu), 1
    if total < SECONDS:
        total, count = 0.0, 0
    while total < SECONDS:
        total, count = total + _seconds(call, is_gpu), count + 1
    return total / count


def _seconds(call: Callable[[], Any], is_gpu: bool = False) -> float:
    """Seconds of this process's processors, or, where a GPU works, of the clock."""
    clock = time.perf_counter if is_gpu else time.process_time
    begin = clock()
    call()
    if is_gpu:
        torch.cuda.synchronize()
    return clock() - begin


def _of_children(command: list[str]) -> float:
    """Processor seconds of a command that is run to its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _short(amount: float) -> str:
    if amount >= 1e13:
        return f"{amount:.1e}"
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if amount >= size:
            return f"{amount / size:,.1f} {word}"
    return f"{amount:,.0f}"

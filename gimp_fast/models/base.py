"""The interface of all models: settings, sizes, representations, losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from pydantic import create_model
from torch import Tensor, nn

from gimp_fast.models.inputs import PatientInputs, Presence
from gimp_fast.models.linear_part import LINEAR_INPUTS, LinearPart, read_by
from gimp_fast.models.settings import Modalities, ModelSettings, Sizes
from gimp_fast.nn.dropout import Dropout
from gimp_fast.nn.linear import Linear
from gimp_fast.ops import native_linear
from gimp_fast.ops.packing import PACKED_WIDTH, aligned, lengths_within
from gimp_fast.ops.registration import is_transformed
from gimp_fast.targets import Classification, Target


@dataclass(frozen=True, eq=False)
class Representation:
    """The vectors that a model classifies, and which patients had the modalities."""

    vectors: Tensor  # (B, ·), all that PatientModel.classify needs
    slide: Presence
    rna: Presence

    @classmethod
    def of(cls, vectors: Tensor, inputs: PatientInputs) -> Representation:
        return cls(vectors, inputs.slide, inputs.rna)

    def __len__(self) -> int:
        return len(self.vectors)

    def tensors(self) -> list[Tensor]:
        return [self.vectors]

    def split(self, lengths: Sequence[int]) -> Iterator[Representation]:
        """Neighbours, so many at a time."""
        presence = (self.slide.split(lengths), self.rna.split(lengths))
        for vectors, *present in zip(self.vectors.split(lengths), *presence, strict=True):
            yield Representation(aligned(vectors), *present)


@dataclass(frozen=True, eq=False)
class Outcome:
    """Logits and losses of one supervised step."""

    logits: Tensor  # (B, K), outputs of the model
    loss: Tensor  # (B,), of each patient, to be averaged


class PatientModel(nn.Module, ABC):
    """Slides and RNA of patients -> what a target asks of them.

    All models take the same :class:`PatientInputs`, and ignore a modality that they do not use. A
    model overrides :meth:`vectors`, and if need be :meth:`logits` and :meth:`losses`; the others
    call :meth:`represent`, :meth:`classify`, :meth:`loss` or the model itself.

    In eval mode on a CPU, each patient is computed alone, or as if it were (:meth:`widths`). So the
    result of a patient is bitwise the same alone, in a batch, and whoever the others are. It does
    not depend on the number of threads either, if the model is built of
    :class:`gimp_fast.nn.Linear` and the modules of :mod:`gimp_fast.nn`. Products of a whole batch
    would round each row in a way that depends on the number of rows.

    Clinical covariates enter every model in the same way: a linear map of them, or a network with
    one hidden layer, is added to its outputs, as in a Cox model, where the hazards of slides, genes
    and covariates multiply. So does the part that is linear in each input, if a model of survival
    has one (:class:`gimp_fast.models.linear_part.LinearPart`).

    Attributes:
        title: name of the model for people to read.
        settings_class: the settings that a user chooses.
        config_class: these settings, and the sizes that the cohort decides; derived if not given.
        reads: modalities that the model can be built for; the first is the default.
        pretraining: ``"gimp"`` (masked patches, triplets), ``"alignment"`` (slides with genes) or
            None.
        supervised_genes: True if its gene encoder is first trained by labels, and then frozen.
        target: what it is asked; by default classes. Training sets that of the run.
    """

    title: ClassVar[str]
    settings_class: ClassVar[type[ModelSettings]]
    config_class: ClassVar[type[Sizes]]
    reads: ClassVar[tuple[Modalities, ...]]
    pretraining: ClassVar[Literal["gimp", "alignment"] | None] = None
    supervised_genes: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "settings_class" in vars(cls) and "config_class" not in vars(cls):
            bases = (cls.settings_class, getattr(cls, "config_class", Sizes))
            name = f"{cls.__name__}Config"
            cls.config_class = create_model(name, __base__=bases, __module__=cls.__module__)

    def __init__(self, config: Sizes):
        super().__init__()
        self.config = config
        self.target: Target = Classification()
        self.covariate_head = covariate_head(config)
        self.linear_part = self._linear_part() if config.linear else None

    @abstractmethod
    def vectors(self, inputs: PatientInputs) -> Tensor:
        """(B, ·), all that :meth:`classify` needs to know of each patient."""

    def logits(self, representation: Representation) -> Tensor:
        """Outputs (B, K), by default of a linear head."""
        return self.head(representation.vectors)

    def losses(self, labels: Tensor, inputs: PatientInputs) -> Outcome:
        """Outputs and losses for the truth of B patients, by default those of the target."""
        logits = self.forward(inputs).float()
        return Outcome(logits, self.target.loss(logits, labels))

    def represent(self, inputs: PatientInputs) -> Representation:
        """The vectors of the patients, and the modalities that they come from.

        Raises:
            ValueError: patches or genes do not have the width that the model was built for.
        """
        self.check(inputs)
        # First: heatmaps free the patches as soon as the network has read them.
        linear = None if self.linear_part is None else self._linear_risks(inputs)
        parts = self._parts(inputs, map(self.product_rows, inputs.lengths()))
        vectors = torch.cat([self.vectors(part) for part in parts])
        if self.covariate_head is not None:
            vectors = torch.cat([vectors, inputs.covariates.to(vectors.dtype)], dim=1)
        if linear is not None:
            vectors = torch.cat([vectors, linear.to(vectors.dtype)], dim=1)
        return Representation.of(vectors, inputs)

    def classify(self, representation: Representation) -> Tensor:
        """Outputs (B, K) of the result of :meth:`represent`; of classes, they are logits."""
        parts = self._parts(representation, [1] * len(representation))
        return torch.cat([self._outputs(part) for part in parts])

    def _outputs(self, representation: Representation) -> Tensor:
        """Outputs with what is added to them, whose columns stand after the model's own vectors."""
        own, covariates, linear = self._columns(representation)
        if covariates is None and linear is None:
            return self.logits(representation)
        outputs = self.logits(replace(representation, vectors=aligned(own)))
        if covariates is not None:
            outputs = outputs + self.covariate_head(aligned(covariates))
        return outputs if linear is None else outputs + linear.sum(1, keepdim=True)

    def _columns(
        self, representation: Representation
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The model's own vectors, the covariates, and the linear risks, if there are any."""
        widths = (
            0 if self.covariate_head is None else self.config.num_covariates,
            0 if self.linear_part is None else len(LINEAR_INPUTS),
        )
        rest = representation.vectors.shape[1] - sum(widths)
        own, covariates, linear = representation.vectors.split([rest, *widths], dim=1)
        return own, covariates if widths[0] else None, linear if widths[1] else None

    def covariate_term(self, representation: Representation) -> Tensor:
        """What covariates add to the outputs, (B, K), for a model that reads some."""
        _, covariates, linear = self._columns(representation)
        added = self.covariate_head(aligned(covariates))
        if linear is None:
            return added
        place = LINEAR_INPUTS.index("covariates")
        return added + linear[:, place : place + 1]

    def added(self, inputs: PatientInputs) -> Tensor | float:
        """What is added to the outputs, (B, K), for models with losses of their own."""
        total = 0.0 if self.covariate_head is None else self.covariate_head(inputs.covariates)
        if self.linear_part is None:
            return total
        return total + self._linear_risks(inputs).sum(1, keepdim=True)

    def _linear_risks(self, inputs: PatientInputs) -> Tensor:
        """(B, 4), those that the inputs bring, or else those of the linear part."""
        return self.linear_part(inputs) if inputs.linear is None else inputs.linear

    def start_from_linear_part(self) -> None:
        """Let the network itself add nothing at first: its last linear map becomes zero."""
        layers = [m for m in getattr(self, "head", self).modules() if isinstance(m, nn.Linear)]
        with torch.no_grad():
            for parameter in layers[-1].parameters():
                parameter.zero_()

    def _linear_part(self) -> LinearPart:
        config = self.config
        modalities = getattr(config, "modalities", self.reads[0])
        widths = {
            "slide": config.feature_dim,
            "amount": 1,
            "rna": config.num_genes,
            "covariates": config.num_covariates,
        }
        read = read_by(modalities, config.num_covariates)
        return LinearPart({name: widths[name] for name in read})

    def loss(self, labels: Tensor, inputs: PatientInputs) -> Outcome:
        """Outputs and losses for the truth: of the target, and terms that the model adds."""
        self.check(inputs)
        if not self._one_by_one(inputs):
            return self.losses(labels, inputs)
        pairs = zip(labels.split(1), inputs.split([1] * len(inputs)), strict=True)
        parts = [self.losses(label, part) for label, part in pairs]
        logits, losses = zip(*((part.logits, part.loss) for part in parts), strict=True)
        return Outcome(torch.cat(logits), torch.cat(losses))

    def widths(self) -> Sequence[int] | None:
        """Widths of all that the model applies a function such as tanh or a softmax to.

        Where ``ops.packing.PACKED_WIDTH`` divides them, a CPU computes patients of short bags
        together in eval mode. So a model that overrides this must use :mod:`gimp_fast.nn` for all
        products, and no statistics of the batch. None if patients are always computed alone.
        """
        return None

    def product_rows(self, patches: int) -> int:
        """Rows of the longest product for a patient with so many patches, for ``widths``."""
        return patches + 1

    def _parts(
        self, batch: PatientInputs | Representation, rows: Iterable[int]
    ) -> Iterable[PatientInputs | Representation]:
        """What is computed at once: the batch, each patient alone, or some with few rows."""
        if not self._one_by_one(batch):
            return [batch]
        if not self._may_pack(batch):
            return batch.split([1] * len(batch))
        return batch.split(lengths_within(list(rows), native_linear.LONGEST))

    def _may_pack(self, batch: PatientInputs | Representation) -> bool:
        """True if patients of few rows may be computed together without another rounding.

        Several threads would share the elements of what is packed in another way.
        """
        widths = self.widths()
        if widths is None or any(width % PACKED_WIDTH for width in widths):
            return False
        weight = next(p for p in self.parameters() if p.dim() == 2)
        return (
            torch.get_num_threads() == 1
            and native_linear.takes(weight[:1], weight)
            and not any(map(is_transformed, batch.tensors()))
        )

    def _one_by_one(self, batch: PatientInputs | Representation) -> bool:
        on_cpu = batch.slide.mask.device.type == "cpu"
        return on_cpu and not self.training and len(batch) > 0 and not torch.compiler.is_compiling()

    def check(self, inputs: PatientInputs) -> None:
        """Raise ValueError for patches or genes that the model would read and cannot."""
        reads = getattr(self.config, "modalities", self.reads[0])
        for name, values, width, modality in (
            ("patches", inputs.patches, self.config.feature_dim, "slide"),
            ("genes", inputs.genes, self.config.num_genes, "rna"),
        ):
            if values is None or reads not in ("both", modality):
                continue
            if values.dim() != 2 or values.shape[1] != width:
                raise ValueError(
                    f"{name} must be (…, {width}), as the model was built for; "
                    f"got {tuple(values.shape)}"
                )
        width, values = self.config.num_covariates, inputs.covariates
        if width and (values is None or values.shape != (len(inputs), width)):
            found = "none" if values is None else str(tuple(values.shape))
            raise ValueError(
                f"covariates must be ({len(inputs)}, {width}), as the model was built for; "
                f"got {found}"
            )

    def forward(self, *inputs, **fields) -> Tensor:
        """Outputs (B, K): logits of classes, or what another target takes.

        Args:
            inputs: :class:`PatientInputs`, or the arguments of :meth:`PatientInputs.of`, for
                example ``model(patches=patches, genes=genes)``.

        Raises:
            ValueError: a model of both modalities got only one, and no flags that say who lacks
                the other.
        """
        if inputs and isinstance(inputs[0], PatientInputs):
            return self.classify(self.represent(inputs[0]))
        batch = PatientInputs.of(*inputs, **fields)
        if getattr(self.config, "modalities", self.reads[0]) == "both":
            for name, absent, flags in (
                ("patches", batch.patches is None, "has_slide"),
                ("genes", batch.genes is None, "has_genes"),
            ):
                if absent and fields.get(flags) is None:
                    raise ValueError(
                        f"found no {name}, but this model reads slides and RNA; give them, or say "
                        f"with {flags} that patients lack them"
                    )
        return self.classify(self.represent(batch))

    def predict(self, *inputs, **fields) -> Tensor:
        """What the target says: of classes, probabilities (B, K). Arguments as :meth:`forward`."""
        return self.target.predictions(self.forward(*inputs, **fields))

    def gene_classifier(self) -> nn.Module:
        """The module (B, G) -> logits that the genes stage trains, with ``supervised_genes``."""
        raise NotImplementedError

    def fit_to_validation(self, representation: Representation, labels: Tensor) -> bool:
        """True if predictions may have changed, because validation patients chose a parameter."""
        return self.target.calibrate(lambda: self.classify(representation), labels)

    def fusion_weight_of_both(self) -> float | None:
        """The weight, 0 to 1, that validation patients gave to the logits that depend on slides.

        The rest is the weight of logits of RNA alone. None for a model without such a choice.
        """
        return None

    @property
    def answers_parts(self) -> bool:
        """True if patients who lack a modality have an answer that was trained for them."""
        return False

    def finetuned_modules(self, freeze_genes: bool) -> Iterator[nn.Module]:
        """Modules that fine-tuning trains; ``freeze_genes`` leaves out a trained gene encoder."""
        yield self

    def loose_parameters(self) -> list[nn.Parameter]:
        """Parameters that fine-tuning trains besides those of ``finetuned_modules``."""
        return []


def absent_token(dim: int) -> nn.Parameter:
    """A learned row, used in place of a modality that a patient lacks."""
    return nn.Parameter(torch.randn(dim) * 0.02)


def dense(width: int, out: int, dropout: float) -> nn.Sequential:
    """ReLU(W x + b), then dropout: (..., width) -> (..., out)."""
    return nn.Sequential(Linear(width, out), nn.ReLU(), Dropout(dropout))


def covariate_head(config: Sizes) -> nn.Module | None:
    """The module (B, D) -> (B, K) of clinical covariates; None for a model without any.

    It adds nothing at first: random weights of a few columns would be noise in every output.
    """
    if not config.num_covariates:
        return None
    hidden = getattr(config, "covariate_hidden", 0)
    last = Linear(hidden or config.num_covariates, config.num_outputs)
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
    if not hidden:
        return last
    return nn.Sequential(*dense(config.num_covariates, hidden, config.covariate_dropout), last)

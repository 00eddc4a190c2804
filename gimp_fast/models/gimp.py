"""GiMP: a gene encoder, a patch aggregator, and a head that fuses their CLS tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gimp_fast.models.base import (
    Modalities,
    ModelSettings,
    PatientModel,
    Representation,
    Sizes,
    absent_token,
)
from gimp_fast.models.gene_classifier import GeneClassifier
from gimp_fast.models.inputs import PatientInputs, Presence
from gimp_fast.nn import GroupMSA, PatchAggregator, PatchDecoder
from gimp_fast.nn.dropout import Dropout
from gimp_fast.nn.group_msa import Projection
from gimp_fast.nn.linear import Linear
from gimp_fast.nn.snn import SNNEncoder
from gimp_fast.ops.masks import Masked

_SNN_WIDTHS = (256, 256, 256, 256)


class GiMPSettings(ModelSettings):
    """Architecture, as far as a user chooses it. Where the paper is silent, it follows TransMIL.

    Attributes:
        dim: d, width of both encoders.
        heads: attention heads of both encoders.
        num_layers: Nyström layers of the patch aggregator.
        num_landmarks: M.
        pinv_iterations: hyper-power iterations of the pseudo-inverse.
        conv_kernel: length in patches of the depthwise residual convolution, odd.
        dropout: probability after each Nyström layer.
        patch_dropout: probability on the embedded patches.
        checkpoint_layers: compute the Nyström layers again in the backward pass instead of keeping
            their intermediate results. Less memory, more time, the same gradients.
        gene_encoder: ``"group_msa"``; or, as an ablation, ``"snn"``, a self-normalising network of
            four blocks of 256 and a linear map, which of the settings below uses only the dropout.
        gene_fragments: N_f, fragments of the expression profile; ``"auto"`` is 64, or one fragment
            per ten genes in a small panel.
        gene_groups: N_gr; ``"auto"`` is 8, or N_f if that is less.
        gene_projection: ``"shared"`` projects all fragments by one matrix, as in the paper;
            ``"own"`` by one for each, which suits panels of few genes.
        gene_dropout: probability in the gene encoder.
        gene_mlp_ratio: MLP in the attention blocks of GroupMSA; 0 for attention only.
        decoder_hidden: hidden width of the reconstruction decoder; 0 for a single linear map.
        head_hidden: hidden width of the fusion head.
        head_dropout: probability in the fusion head.
        fusion: ``"head"`` is the MLP head only; ``"validated"`` mixes its logits with those of the
            classifier of the genes stage, by a weight that is chosen on the validation patients.
            The gene encoder must then stay frozen in fine-tuning.
        missing: how patients are answered who lack slides or RNA. ``"token"``: by the head, with a
            learned token for what they lack. ``"heads"``: by a head of what they have, slides alone
            or the classifier of the genes stage. The slide encoder is then trained with its own
            head, in the stage ``slides``, and both encoders stay frozen in fine-tuning.
    """

    later: ClassVar[dict[str, Any]] = {"missing": "token"}

    dim: int = Field(512, ge=1)
    heads: int = Field(8, ge=1)
    num_layers: int = Field(2, ge=1)
    num_landmarks: int = Field(256, ge=1)
    pinv_iterations: int = Field(6, ge=0)
    conv_kernel: int = Field(33, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    patch_dropout: float = Field(0.0, ge=0, lt=1)
    checkpoint_layers: bool = False
    gene_encoder: Literal["group_msa", "snn"] = "group_msa"
    gene_fragments: int | Literal["auto"] = "auto"
    gene_groups: int | Literal["auto"] = "auto"
    gene_projection: Projection = "shared"
    gene_dropout: float = Field(0.1, ge=0, lt=1)
    gene_mlp_ratio: float = Field(0.0, ge=0)
    decoder_hidden: int = Field(0, ge=0)
    head_hidden: int = Field(256, ge=1)
    head_dropout: float = Field(0.25, ge=0, lt=1)
    fusion: Literal["head", "validated"] = "head"
    missing: Literal["token", "heads"] = "token"


class GiMPConfig(GiMPSettings, Sizes):
    """Architecture, and the sizes that the cohort decides.

    Attributes:
        modalities: the encoders that the model has.
    """

    modalities: Modalities = "both"

    def resolved_gene_groups(self) -> tuple[int, int]:
        """Number of fragments and of groups, without ``"auto"``; gene sets are the groups."""
        fragments = self.gene_fragments
        if fragments == "auto":
            genes = sum(map(len, self.gene_sets)) if self.gene_sets else self.num_genes
            fragments = min(64, max(1, genes // 10))
        if self.gene_sets is not None:
            return fragments, len(self.gene_sets)
        groups = self.gene_groups
        if groups == "auto":
            groups = min(8, fragments)
        return fragments, groups


class GiMP(PatientModel):
    """Slides and RNA of a patient -> class (GiMP, Jin et al., MICCAI 2023).

        CLS_img = Aggregator(H_p),  CLS_ge = GroupMSA(X_G),  CLS_pat = [CLS_img; CLS_ge] ∈ ℝ^2d
        P̂ = softmax(MLP(CLS_pat))

    A learned token stands in CLS_pat for a modality that a patient lacks. A model for one modality
    has CLS_pat ∈ ℝ^d.

    With ``fusion="validated"`` the logits of a patient with RNA are (1 − w)(W CLS_ge + b) +
    w MLP(CLS_pat), with W and b from the genes stage. Slides can mislead on patients of hospitals
    that the training did not see; then w → 0 makes the model rely on the genes.

    With ``missing="heads"`` patients who lack a modality have logits of the other alone: a head of
    CLS_img that slides were trained with, or W CLS_ge + b. With the same seed and without
    pre-training, the head of slides is that of a model of slides alone, bit for bit.
    """

    title = "GiMP"
    settings_class, config_class, reads = GiMPSettings, GiMPConfig, ("both", "slide", "rna")
    pretraining, supervised_genes = "gimp", True

    def __init__(self, config: GiMPConfig, backend: str = "auto"):
        super().__init__(config)
        self.aggregator = self.decoder = self.gene_encoder = None
        self.gene_head = self.slide_head = None
        trains_genes = config.modalities == "both" and self.supervised_genes
        if config.modalities != "rna":
            self.aggregator = PatchAggregator(
                feature_dim=config.feature_dim,
                dim=config.dim,
                heads=config.heads,
                num_layers=config.num_layers,
                num_landmarks=config.num_landmarks,
                pinv_iterations=config.pinv_iterations,
                conv_kernel=config.conv_kernel,
                dropout=config.dropout,
                input_dropout=config.patch_dropout,
                checkpoint_layers=config.checkpoint_layers,
                backend=backend,
            )
            self.decoder = PatchDecoder(config.dim, config.feature_dim, config.decoder_hidden)
            self.absent_slide = absent_token(config.dim)
        if config.missing == "heads" and trains_genes:
            # As a model of slides alone draws its head; the others are drawn as without it.
            with torch.random.fork_rng(devices=[]):
                self.slide_head = self._mlp(config.dim)
        if config.modalities != "slide":
            self.gene_encoder = _gene_encoder(config)
            self.absent_genes = absent_token(config.dim)
        width = config.dim * (2 if config.modalities == "both" else 1)
        self.head = self._mlp(width)
        is_mixed = config.fusion == "validated" and trains_genes
        if is_mixed or self.slide_head is not None:
            self.gene_head = Linear(config.dim, config.num_outputs)
        self.register_buffer("fusion_weight", torch.ones(()) if is_mixed else None)

    def _mlp(self, width: int) -> nn.Sequential:
        config = self.config
        return nn.Sequential(
            Linear(width, config.head_hidden),
            nn.GELU(),
            Dropout(config.head_dropout),
            Linear(config.head_hidden, config.num_outputs),
        )

    def widths(self) -> Sequence[int] | None:
        config, of_genes = self.config, []
        if self.gene_encoder is not None and config.gene_projection == "own":
            return None
        if isinstance(self.gene_encoder, GroupMSA):
            of_genes = [round(config.dim * config.gene_mlp_ratio)]
        return [config.dim, config.head_hidden, *of_genes]

    def product_rows(self, patches: int) -> int:
        of_genes = self.gene_encoder.num_tokens if isinstance(self.gene_encoder, GroupMSA) else 1
        return max(super().product_rows(patches), of_genes)

    def vectors(self, inputs: PatientInputs) -> Tensor:
        """CLS_pat of each patient, (B, 2d), or (B, d) for a model of one modality."""
        parts = []
        if self.aggregator is not None:
            cls_img = None
            if inputs.has_bags:
                cls_img, _ = self.aggregator(inputs.patches, cu_seqlens=inputs.bags, keep="none")
            parts.append(inputs.slide.fill(cls_img, self.absent_slide))
        if self.gene_encoder is not None:
            parts.append(self._cls_ge(inputs.present_genes, inputs.rna))
        return torch.cat(parts, dim=-1)

    def _cls_ge(self, genes: Tensor | None, rna: Presence) -> Tensor:
        """CLS_ge (B, d), a learned token for patients without RNA; genes are (present, G)."""
        encoded = None if genes is None else self.gene_encoder(genes)
        return rna.fill(encoded, self.absent_genes)

    def logits(self, representation: Representation) -> Tensor:
        vectors = representation.vectors
        fused = self.head(vectors)
        if self.gene_head is None or self.head.training:
            return fused
        from_genes, answer = self.gene_head(vectors[:, self.config.dim :]).float(), fused.float()
        if self.fusion_weight is not None:
            answer = self._mixed(from_genes, answer, representation.rna)
        if self.slide_head is None:
            return answer
        slide, rna = (of.mask[:, None] for of in (representation.slide, representation.rna))
        from_slides = self.slide_head(vectors[:, : self.config.dim].contiguous()).float()
        return torch.where(slide & rna, answer, torch.where(slide, from_slides, from_genes))

    def _mixed(self, from_genes: Tensor, fused: Tensor, rna: Presence) -> Tensor:
        """The logits of patients with RNA mixed by the weight, (B, classes); else those fused."""
        return torch.lerp(
            from_genes, fused, torch.where(rna.mask[:, None], self.fusion_weight, 1.0)
        )

    def gene_classifier(self) -> GeneClassifier:
        """The gene encoder with a linear head, which the model may keep."""
        classifier = GeneClassifier(self.gene_encoder, self.config.dim, self.config.num_outputs)
        if self.gene_head is not None:
            classifier.head = self.gene_head
        return classifier

    @torch.no_grad()
    def fit_to_validation(self, representation: Representation, labels: Tensor) -> bool:
        """With validated fusion, sets w to the best of 0, 0.1 … 1 by the loss of the target."""
        if self.fusion_weight is None:
            return super().fit_to_validation(representation, labels)
        # The heads do not know the weight: 0 and 1 give what every weight mixes.
        ends, losses = [], []
        for weight in (0.0, 1.0):
            self.fusion_weight.fill_(weight)
            ends.append(self.classify(representation))
        for step in range(11):
            self.fusion_weight.fill_(step / 10)
            mixed = self._mixed(*ends, representation.rna)
            losses.append(self.target.loss(mixed, labels).mean())
        losses = torch.stack(losses).tolist()
        self.fusion_weight.fill_(losses.index(min(losses)) / 10)
        super().fit_to_validation(representation, labels)
        return True

    def fusion_weight_of_both(self) -> float | None:
        return None if self.fusion_weight is None else round(float(self.fusion_weight), 6)

    @property
    def answers_parts(self) -> bool:
        return self.slide_head is not None

    def finetuned_modules(self, freeze_genes: bool) -> Iterator[nn.Module]:
        yield self.head
        if self.covariate_head is not None:
            yield self.covariate_head
        if self.aggregator is not None and self.slide_head is None:
            yield self.aggregator
        if self.gene_encoder is not None and not (freeze_genes and self.supervised_genes):
            yield self.gene_encoder

    def loose_parameters(self) -> list[nn.Parameter]:
        tokens = [getattr(self, name, None) for name in ("absent_slide", "absent_genes")]
        return [token for token in tokens if token is not None]

    def pretrain_parts(
        self,
        windows: Tensor,
        masked: Tensor | Masked,
        genes: Tensor | None = None,
        rna: Presence | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Reconstruction loss of masked windows, and CLS_pat, from which triplets are mined.

        The gene encoder is frozen and runs without gradients. Only masked rows are decoded, a chunk
        at a time.

        Args:
            windows: (B, L, C) contiguous patch windows.
            masked: (B, L) bool, True = masked; a GPU does not wait for :class:`Masked`.
            genes: (B, G) scaled expression, for a model with a gene encoder.
            rna: which patients have RNA; None if all have.

        Returns:
            The sum of eq. 3, and (B, 2d), or (B, d) for a model that reads only slides.
        """
        cls_img, tokens = self.aggregator(windows, masked=masked, keep="masked")
        reconstruction = self.decoder.reconstruction_loss(tokens, windows, masked, reduction="sum")
        parts = [cls_img]
        if self.gene_encoder is not None:
            rna = rna or Presence.of([True] * len(windows), windows.device)
            with torch.no_grad():
                parts.append(self._cls_ge(rna.rows_of(genes) if rna.count else None, rna))
        return reconstruction, torch.cat(parts, dim=-1)


def _gene_encoder(config: GiMPConfig) -> nn.Module:
    """The module (B, G) -> (B, d)."""
    if config.gene_encoder == "snn":
        blocks = SNNEncoder(config.num_genes, _SNN_WIDTHS, config.gene_dropout)
        return nn.Sequential(blocks, Linear(_SNN_WIDTHS[-1], config.dim))
    fragments, groups = config.resolved_gene_groups()
    return GroupMSA(
        config.num_genes,
        dim=config.dim,
        heads=config.heads,
        num_fragments=fragments,
        num_groups=groups,
        mlp_ratio=config.gene_mlp_ratio,
        dropout=config.gene_dropout,
        gene_sets=config.gene_sets,
        projection=config.gene_projection,
    )

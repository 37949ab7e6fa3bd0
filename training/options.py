"""What a training run is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import isfinite

from inspector.errors import TrainingError
from inspector.model.backbone import normalisation
from inspector.model.network import METHODS
from inspector.model.records import EXPOSURES, Architecture, Preprocessing, Scoring, preset

METHOD = "restore"  # where none is named: the best of those that need nothing from outside
EPOCHS = {"paper": 200, "small": 60, "tiny": 40}
LEARNING_RATE = {"paper": 2e-4, "small": 5e-4, "tiny": 1e-3}
FEATURE_EPOCHS = 12  # of any preset: only a decoder is learned …
FEATURE_STEPS = 300  # … and many parts teach it no more
FEATURE_HELD_OUT = 0.15  # the blend of its errors is found on them
FEATURE_LEARNING_RATE = 1e-3
RESTORE_EPOCHS = {"paper": 20_000, "small": 2000, "tiny": 500}  # at most, for few parts have short ones …
RESTORE_STEPS = {"paper": 20_000, "small": 600, "tiny": 500}  # … damage is new each time: parts do not count
RESTORE_LEARNING_RATE = 2e-3
SYMMETRIES = ("flip-x", "flip-y", "turn-90", "turn")


@dataclass(frozen=True)
class TrainOptions:
    """The paper's settings unless said otherwise (section 4.2). Raises TrainingError for impossible ones.

    device, threads: as for the Engine; they are no part of what a checkpoint belongs to.
    """

    architecture: Architecture = field(default_factory=Architecture)
    roi: tuple[int, int, int, int] | None = None
    exposure: str = "as-is"  # or "even", see Preprocessing, or "auto": as the parts ask for
    epochs: int = 200
    steps: int = 0  # that are enough: the epoch that reaches them is the last; 0: all epochs
    batch: int = 8
    learning_rate: float = 2e-4
    reconstruction_weight: float = 1.0  # λ_recon, eq. 15
    entropy_weight: float = 0.001  # λ_ent, eq. 15
    ssim_weight: float = 1.0  # λ, eq. 13
    slots_from: str = "features"  # what the memory starts from: "features" of the parts, or "random"
    memory_after: float = 0.25  # share of the epochs that the paper's method learns without its memory
    backbone_weights: str = ""  # a file; "" lets timm download what the backbone's name says
    symmetries: tuple[str, ...] = ()  # of SYMMETRIES: how a normal part may lie as well as it does
    held_out: float = 0.1  # share of the parts that are not trained on, for reporting
    seed: int = 0
    scoring: Scoring | None = None  # None: smoothed in proportion to the input size
    precision: str = "float32"
    device: str = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        if self.architecture.method not in METHODS:
            known = ", ".join(sorted(METHODS))
            raise TrainingError(f"method is {self.architecture.method!r}: expected one of {known}")
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} is {getattr(self, name)}: expected 1 or more")
        if self.steps < 0:
            raise TrainingError(f"steps is {self.steps}: expected 0 (as many as the epochs have) or more")
        if self.exposure not in ("auto", *EXPOSURES):
            known = ", ".join(("auto", *EXPOSURES))
            raise TrainingError(f"exposure is {self.exposure!r}: expected one of {known}")
        if unknown := set(self.symmetries) - set(SYMMETRIES):
            raise TrainingError(
                f"symmetries has {', '.join(sorted(unknown))}: expected any of {', '.join(SYMMETRIES)}"
            )
        if not (isfinite(self.learning_rate) and self.learning_rate > 0):
            raise TrainingError(f"learning_rate is {self.learning_rate}: expected a positive number")
        if self.slots_from not in ("features", "random"):
            raise TrainingError(f'slots_from is {self.slots_from!r}: expected "features" or "random"')
        if not 0 <= self.memory_after < 1:
            raise TrainingError(
                f"memory_after is {self.memory_after}: expected a share from 0 to less than 1"
            )
        if not 0 <= self.held_out < 1:
            raise TrainingError(f"held_out is {self.held_out}: expected a share from 0 to less than 1")

    @classmethod
    def of(
        cls,
        *,
        method: str,
        preset: str,
        roi: tuple[int, int, int, int] | None = None,
        epochs: int | None = None,
        backbone: str = "",
        backbone_weights: str = "",
        symmetries: tuple[str, ...] = (),
        exposure: str | None = None,
        seed: int = 0,
        threads: int = 0,
        device: str = "auto",
    ) -> TrainOptions:
        """The options that go with a method and a preset. Raises ModelError for names not known.

        backbone: another than the preset's; backbone_weights: its file. Both for the feature method alone.
        exposure: "auto" if not said otherwise, but for the paper's method, which takes pictures as they are.
        """
        architecture, featured = _preset(preset, method), method == "feature"
        if backbone and featured:
            architecture = replace(architecture, backbone=backbone)
        usual = {"feature": FEATURE_EPOCHS, "restore": RESTORE_EPOCHS[preset]}
        rates = {"feature": FEATURE_LEARNING_RATE, "restore": RESTORE_LEARNING_RATE}
        steps = {"feature": FEATURE_STEPS, "restore": RESTORE_STEPS[preset]}
        return cls(
            architecture=architecture,
            held_out=FEATURE_HELD_OUT if featured else cls.held_out,
            roi=roi,
            epochs=epochs or usual.get(method, EPOCHS[preset]),
            steps=0 if epochs else steps.get(method, 0),
            learning_rate=rates.get(method, LEARNING_RATE[preset]),
            backbone_weights=backbone_weights if featured else "",
            symmetries=symmetries,
            exposure=exposure or ("as-is" if method == "paper" else "auto"),
            seed=seed,
            threads=threads,
            device=device,
        )

    def preprocessing(self) -> Preprocessing:
        """Intensities in [-1, 1], the range of the decoder's tanh, or as the backbone was trained.

        Where the exposure is "auto" pictures are as they are: training looks at the parts first.
        """
        a = self.architecture
        exposure = "as-is" if self.exposure == "auto" else self.exposure
        if a.method == "feature":
            mean, std = normalisation(a.backbone)
            return Preprocessing(size=a.size, roi=self.roi, mean=mean, std=std, exposure=exposure)
        return Preprocessing(size=a.size, roi=self.roi, exposure=exposure)

    def chosen_scoring(self) -> Scoring:
        """The scoring asked for, or the usual one of the method at this input size: σ 4 px at 384."""
        usual = Scoring(sigma=self.architecture.size / 96)
        if self.architecture.method != "paper":
            usual = replace(usual, reduction="top", top_share=0.002)
        return self.scoring or usual


_preset = preset  # the argument of the same name hides it

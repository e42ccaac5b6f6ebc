"""RetinaFace on MobileNetV1-0.25: the baseline that FeatherFace came from."""

from torch import Tensor

from featherpress.models.detectors import Detector
from featherpress.models.layers.context import SSH
from featherpress.models.layers.convolution import PerLevel
from featherpress.models.layers.fpn import FPN
from featherpress.models.layers.heads import Detections, SeparateHeads
from featherpress.models.mobilenet import TAP_CHANNELS, MobileNetV1Quarter
from featherpress.models.priors import PriorSpec


class RetinaFace(Detector):
    """Backbone, feature pyramid, SSH, nine heads; inputs and outputs as `Detector` says.

    Source: Deng et al. 2020, RetinaFace.
    """

    def __init__(self, *, out_channels: int, num_anchors: int) -> None:
        super().__init__(PriorSpec(per_cell=num_anchors))
        levels = len(TAP_CHANNELS)
        self.backbone = MobileNetV1Quarter()
        self.fpn = FPN(TAP_CHANNELS, out_channels)
        self.context = PerLevel(SSH(out_channels, deformable=False) for _ in range(levels))
        self.heads = SeparateHeads(out_channels, levels=levels, anchors=num_anchors)

    def forward(self, images: Tensor) -> Detections:
        """Return raw boxes, class logits and landmarks for every prior."""
        features = self.backbone(images)
        features = self.fpn(features)
        features = self.context(features)
        detections: Detections = self.heads(features)
        return detections


build = RetinaFace

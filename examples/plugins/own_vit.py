"""An encoder of your own with its own weights: a ViT of timm, patches resized to 224 pixels.

gimp-fast extract --plugin own_vit.py --encoder my_vit --weights my_vit.pth --slides svs --out out
"""

from torch import load

from gimp_fast import wsi
from gimp_fast.wsi.encoders.timm_import import import_timm


def make(weights):  # the file of --weights as a Path, or None
    timm = import_timm("own_vit.py")
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    if weights is not None:
        network.load_state_dict(load(weights, weights_only=True))
    return network  # (B, 3, 224, 224), normalised -> (B, 192)


wsi.register_encoder("my_vit", make, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), size=224)

"""Augmentations: `f(key, image, *, ...) -> image` for one image, applied inside the step.

`jax.vmap` takes a batch of keys and images. Integers are understood as [0, 255] and floats as
[0, 1] where a range matters and `high` does not say otherwise. What draws nothing takes no key;
what mixes examples takes a batch with its labels.
"""

from jaxtrain.augment._affine import affine as affine
from jaxtrain.augment._affine import random_affine as random_affine
from jaxtrain.augment._affine import random_rotation as random_rotation
from jaxtrain.augment._affine import random_scale as random_scale
from jaxtrain.augment._affine import random_shear as random_shear
from jaxtrain.augment._affine import random_stretch as random_stretch
from jaxtrain.augment._affine import random_translation as random_translation
from jaxtrain.augment._affine import rotate as rotate
from jaxtrain.augment._audio import audio_gain as audio_gain
from jaxtrain.augment._audio import audio_noise as audio_noise
from jaxtrain.augment._audio import audio_shift as audio_shift
from jaxtrain.augment._color import blend as blend
from jaxtrain.augment._color import brightness as brightness
from jaxtrain.augment._color import color_jitter as color_jitter
from jaxtrain.augment._color import contrast as contrast
from jaxtrain.augment._color import exchange_channels as exchange_channels
from jaxtrain.augment._color import grayscale as grayscale
from jaxtrain.augment._color import hue as hue
from jaxtrain.augment._color import saturation as saturation
from jaxtrain.augment._compose import compose as compose
from jaxtrain.augment._compose import maybe as maybe
from jaxtrain.augment._effects import OPERATIONS as OPERATIONS
from jaxtrain.augment._effects import WIDE as WIDE
from jaxtrain.augment._effects import Ranges as Ranges
from jaxtrain.augment._erase import cutout as cutout
from jaxtrain.augment._erase import random_erasing as random_erasing
from jaxtrain.augment._filter import gaussian_blur as gaussian_blur
from jaxtrain.augment._filter import random_blur as random_blur
from jaxtrain.augment._filter import sharpen as sharpen
from jaxtrain.augment._geometry import center_crop as center_crop
from jaxtrain.augment._geometry import crop as crop
from jaxtrain.augment._geometry import flip as flip
from jaxtrain.augment._geometry import random_crop as random_crop
from jaxtrain.augment._geometry import random_flip as random_flip
from jaxtrain.augment._geometry import random_resized_crop as random_resized_crop
from jaxtrain.augment._geometry import resize as resize
from jaxtrain.augment._lighting import Lighting as Lighting
from jaxtrain.augment._lighting import fit_lighting as fit_lighting
from jaxtrain.augment._lighting import pca_lighting as pca_lighting
from jaxtrain.augment._mix import cutmix as cutmix
from jaxtrain.augment._mix import mix_same_class as mix_same_class
from jaxtrain.augment._mix import mixup as mixup
from jaxtrain.augment._noise import gaussian_noise as gaussian_noise
from jaxtrain.augment._noise import salt_and_pepper as salt_and_pepper
from jaxtrain.augment._policy import auto_augment as auto_augment
from jaxtrain.augment._policy import rand_augment as rand_augment
from jaxtrain.augment._policy import trivial_augment as trivial_augment
from jaxtrain.augment._search import PolicySearch as PolicySearch
from jaxtrain.augment._search import random_policy as random_policy
from jaxtrain.augment._search import search_policy as search_policy
from jaxtrain.augment._tables import autocontrast as autocontrast
from jaxtrain.augment._tables import equalize as equalize
from jaxtrain.augment._tables import invert as invert
from jaxtrain.augment._tables import posterize as posterize
from jaxtrain.augment._tables import solarize as solarize
from jaxtrain.augment._text import insert_words as insert_words
from jaxtrain.augment._text import random_swap as random_swap
from jaxtrain.augment._text import synonyms as synonyms
from jaxtrain.augment._text import token_dropout as token_dropout
from jaxtrain.augment._views import five_crop as five_crop
from jaxtrain.augment._views import flips as flips
from jaxtrain.augment._views import multi_scale_crops as multi_scale_crops
from jaxtrain.augment._views import predict_views as predict_views
from jaxtrain.augment._views import ten_crop as ten_crop
from jaxtrain.augment._warp import elastic as elastic
from jaxtrain.augment._warp import lens_distortion as lens_distortion
from jaxtrain.augment._warp import random_lens_distortion as random_lens_distortion
from jaxtrain.augment._warp import resample as resample

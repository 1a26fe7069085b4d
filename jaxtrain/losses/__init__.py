"""Losses: functions of outputs and targets that return one number per example, never reduced.

What has options is called with them, `functools.partial(losses.huber, delta=2.0)`, to be the loss
of `train.make_step`.
"""

from ._classification import binary_hinge as binary_hinge
from ._classification import focal as focal
from ._classification import hinge as hinge
from ._classification import sigmoid_cross_entropy as sigmoid_cross_entropy
from ._classification import sigmoid_focal as sigmoid_focal
from ._classification import softmax_cross_entropy as softmax_cross_entropy
from ._labels import at_class as at_class
from ._labels import check_labels as check_labels
from ._regression import absolute_error as absolute_error
from ._regression import huber as huber
from ._regression import minkowski as minkowski
from ._regression import squared_error as squared_error
from ._weights import class_weighted as class_weighted
from ._weights import class_weights as class_weights
from ._weights import sample_weighted as sample_weighted

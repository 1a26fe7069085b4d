"""Optimizers: optax transformations written from their equations, and what their state tells."""

from ._adam import AdamState as AdamState
from ._adam import adam as adam
from ._adam import scale_by_adam as scale_by_adam
from ._base import LearningRateState as LearningRateState
from ._base import eval_params as eval_params
from ._base import grad_params as grad_params
from ._base import learning_rate as learning_rate
from ._base import scale_by_learning_rate as scale_by_learning_rate
from ._momentum import LookaheadState as LookaheadState
from ._momentum import MomentumState as MomentumState
from ._momentum import ShiftedState as ShiftedState
from ._momentum import momentum as momentum
from ._momentum import scale_by_momentum as scale_by_momentum
from ._momentum import sgd as sgd

"""Layers: pure `init` / `apply` pairs, and what combines, changes and inspects them."""

from jaxtrain.nn import initializers as initializers
from jaxtrain.nn._batch_stats import recompute_batch_stats as recompute_batch_stats
from jaxtrain.nn._combine import cast as cast
from jaxtrain.nn._combine import frozen as frozen
from jaxtrain.nn._combine import pad_shortcut as pad_shortcut
from jaxtrain.nn._combine import parallel as parallel
from jaxtrain.nn._combine import remat as remat
from jaxtrain.nn._combine import repeat as repeat
from jaxtrain.nn._combine import residual as residual
from jaxtrain.nn._combine import serial as serial
from jaxtrain.nn._layer import EVAL as EVAL
from jaxtrain.nn._layer import Context as Context
from jaxtrain.nn._layer import Layer as Layer
from jaxtrain.nn._layer import constructor as constructor
from jaxtrain.nn._linear import conv as conv
from jaxtrain.nn._linear import dense as dense
from jaxtrain.nn._look import rewrite as rewrite
from jaxtrain.nn._look import split_taps as split_taps
from jaxtrain.nn._look import summary as summary
from jaxtrain.nn._look import tap as tap
from jaxtrain.nn._norm import batch_norm as batch_norm
from jaxtrain.nn._norm import standardize as standardize
from jaxtrain.nn._pool import avg_pool as avg_pool
from jaxtrain.nn._pool import flatten as flatten
from jaxtrain.nn._pool import global_avg_pool as global_avg_pool
from jaxtrain.nn._pool import max_pool as max_pool
from jaxtrain.nn._stochastic import dropout as dropout

from jaxtrain.nn._describe import build as build  # isort: skip
from jaxtrain.nn._describe import describe as describe  # isort: skip

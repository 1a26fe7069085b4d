"""The training half of deep learning as pure functions, for JAX.

Nothing is imported eagerly: write `from jaxtrain import nn, optim, train`.
"""

__version__ = "0.1.0"

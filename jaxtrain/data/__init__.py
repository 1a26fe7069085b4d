"""Data sets in host memory, the order of their examples, and preprocessing as fit/apply pairs."""

from . import standardize as standardize
from . import synthetic as synthetic
from ._cifar import cifar10 as cifar10
from ._cifar import cifar100 as cifar100
from ._csv import Table as Table
from ._csv import csv as csv
from ._dataset import ArrayDataset as ArrayDataset
from ._dataset import split as split
from ._digits import digits as digits
from ._image_folder import image_folder as image_folder
from ._mnist import mnist as mnist
from ._mnist import read_idx as read_idx
from ._order import Order as Order

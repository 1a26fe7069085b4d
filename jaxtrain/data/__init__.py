"""Data sets in host memory, their order, parts and folds, preprocessing, and checks of them."""

from . import clean as clean
from . import min_max as min_max
from . import pca as pca
from . import robust as robust
from . import standardize as standardize
from . import synthetic as synthetic
from . import whiten as whiten
from ._cifar import cifar10 as cifar10
from ._cifar import cifar100 as cifar100
from ._csv import Table as Table
from ._csv import csv as csv
from ._dataset import ArrayDataset as ArrayDataset
from ._digits import digits as digits
from ._image_folder import image_folder as image_folder
from ._mnist import mnist as mnist
from ._mnist import read_idx as read_idx
from ._order import Order as Order
from ._pipeline import Preprocessing as Preprocessing
from ._pipeline import pipeline as pipeline
from ._pipeline import prepare as prepare
from ._split import RATIOS as RATIOS
from ._split import Scores as Scores
from ._split import cross_validate as cross_validate
from ._split import k_fold as k_fold
from ._split import split as split

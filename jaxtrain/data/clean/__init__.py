"""Checks of data that report what they find and never drop it.

Each takes an array whose first axis counts examples, or a pandas frame whose rows are examples, and
returns a `Report`. What to do with its `indices` is for the caller to decide.
"""

from ._compare import compare as compare
from ._duplicates import duplicates as duplicates
from ._duplicates import near_duplicates as near_duplicates
from ._labels import label_noise as label_noise
from ._outliers import mahalanobis as mahalanobis
from ._outliers import nulls as nulls
from ._outliers import outliers as outliers
from ._report import Report as Report

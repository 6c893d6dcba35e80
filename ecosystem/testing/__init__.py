"""Checks for the tests of plug-ins, of the laws that every policy and every model family must obey.

::

    from ecosystem.testing import check_family, check_policy

    def test_my_policy():
        check_policy(MyPolicy(limit=3))

    def test_my_family(tmp_path):
        check_family(MyFamily(), documents, tmp_path)
"""

from ecosystem.testing.families import check_family
from ecosystem.testing.policies import check_policy
from ecosystem.testing.samples import sample_context, sample_documents

__all__ = ["check_family", "check_policy", "sample_context", "sample_documents"]

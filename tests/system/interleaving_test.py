"""Statements of two connections, in all orders."""

from importlib import import_module

import pytest


@pytest.mark.parametrize(
    'name',
    [
        'ClaimClaim',
        'ClaimCancel',
        'LimitedClaimCancel',
        'CommitRescue',
        'ReleaseRescue',
        'FinishRescue',
        'FinishCancel',
        'FinishStop',
        'UnblockUnblock',
        'UnblockCancel',
        'KeyKey',
        'KeyClaim',
        'CapacityCapacity',
        'RetryPrune',
    ],
)
def test_all_orders(database, name):
    import_module('interleavings').play_all(database, name)

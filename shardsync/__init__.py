"""shardsync: keep many web nodes in step with one large tree, seconds behind."""

__version__ = "0.1.0"

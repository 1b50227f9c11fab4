"""The one core: attention, feed-forward, norms, positions, blocks and stacks of them."""

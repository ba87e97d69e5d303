"""What a network does: how its tensors flow, and which units and SE blocks that makes."""

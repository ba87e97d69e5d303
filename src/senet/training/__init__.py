"""Training and evaluating: one readable loop on plain PyTorch, recipes as data, run folders."""

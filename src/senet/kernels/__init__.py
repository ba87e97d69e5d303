"""The arithmetic of SE, beneath every module: tensors in, tensors out, no policy.

``reference`` is the truth: plain PyTorch that any faster form is compared with.
"""

"""The element-wise work of a layer and of an update, each piece of it in one pass over memory.

Every function here has two forms of one meaning: plain PyTorch (`…_plain`), which says what is computed and
runs anywhere, and a Triton kernel (`triton_….py`), which runs on GPUs. Triton is imported when a tensor on a
GPU first asks for it.

norm.py           RMSNorm, forward and backward
rope.py           rotary positions, in place
swiglu.py         SwiGLU, and its backward that computes the product again instead of keeping it
low_rank.py       what an adapter adds, and the residual
cross_entropy.py  losses of target tokens and the slope of their logits, in place
nf4.py            NF4 → dense or FP8, in either layout
fp8.py            rows in FP8, their products, and FP8 bytes transposed
adamw.py          one update of all runs' adapters; gradient norms and largest weights of each run
"""

"""The systems of the comparison: their protocols, and networks of the paper that no maintained library has.

These networks map clips (B, C, T, H, W) to logits (B, K). They are written after their papers, so that their cost can be counted
and their speed timed under the same clock as STAM's. Clips are normalised by the caller. There are no pretrained weights and no
dropout. Every published figure quoted here is checked in tests/models/baselines/test_networks.py. MACs are multiply-adds of
convolutions and matrix products for one view; where ours differ from the published ones, the docstring says by how much.

Letters in shapes: B videos, C channels, T frames, H and W pixels (or cells of a feature map), M = B * T frames folded,
P positions of a feature map (its T * H * W), K classes.
"""

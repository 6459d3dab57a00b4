"""What parallel decoding loses, in bits: the decoded joint distribution against the network's own. And what
held-out images cost a network, by order (``likelihood``).

The reference p is the network decoded one token at a time in the plan's order; q is the joint distribution
of the decode loop with the plan's groups. ``exact`` enumerates both on a tiny world, ``estimate`` draws
images from q and lets the network's one-at-a-time conditionals judge them. Both give KL(q || p) by step, so
order rules can be compared without any feature network.

KL(q || p) has two causes, told apart on the enumerable world: tokens of a group are drawn independently (the
group's conditional total correlation), and a network asked for a group may give other marginals than its
one-at-a-time conditionals imply.
"""

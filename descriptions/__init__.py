"""Class descriptions: the files that FAIR's anchors are made of, what they must hold, and how to make one.

`<data set>.json` maps class names to sentences. `python -m descriptions` checks and generates such files.
"""

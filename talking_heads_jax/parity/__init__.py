"""Golden cases: numbers of reference implementations that our networks have to reproduce.

A case is a json beside an npz: parameters of a rule that rebuilds every weight from its name, the
inputs, the expected outputs and a tolerance for each. `runner.run_folder` runs the cases of a
folder through the same classes that train and animate; nothing in the folder is imported.
"""

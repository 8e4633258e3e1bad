"""Does it train better? Many runs through verl, a table of each, and what they add up to.

`plan` reads which runs there are, `runner` and `processes` execute them one at a time, `tables` keeps what
each did, `curves` measures one run, `compare` many, and `report` writes it down.
"""

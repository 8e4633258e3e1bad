"""Does it train better? Many runs through verl, a table of each, and what they add up to.

`plan` reads which runs there are; `runner` and `processes` execute them one at a time; `tables` keeps what
each did and `archive` finds all of them; `curves` measures one run, `gains` compares many, and
`study_report` writes it down.
"""

"""Our own records and file formats; they need numpy at most.

=================  =====================================================================
`checkpoint.py`    ``Checkpoint``: one set of weights of a run, loadable or blocked
`prompt.py`        ``Prompt`` and the three prompt file formats
`rollout.py`       ``Rollout``: one response, token-exact, and its JSON lines
`recorded.py`      ``Recorded``: one response as a trainer wrote it, before it is a rollout
`scores.py`        ``Scores``: all that metrics need about N states, one safetensors file
`fits.py`          ``Fits``: what a second pass leaves at some states, one safetensors file
`verdict.py`       ``Verdict``: one answer with its evidence; a list of them
`sampling.py`      ``Sampling``: how responses are sampled
`answer.py`        whether a response gives the reference answer
`prompt_files.py`   prompts in the files that trainers read
`sft_files.py`     ``Lesson``: a prompt and the response that is taught, in the files of trainers
`settings.py`      ``Settings``: every option of a report, with defaults
`vocabulary.py`    what the ids that occur look like
`json_lines.py`    reading text and JSON lines, with errors that name the line
`files.py`         writing a file whole or not at all
=================  =====================================================================
"""

"""The authors' files, one module per family: key map, hyper-parameters, settings, what shapes say.

Beside each module a table of its networks:

    [family.NAME]       strategy, paper, where the files are and under which licence as far as stated,
                        tokenizer of the models that name no other
    [preset.NAME]       one model; `reported` is the size the paper prints
    [preset.NAME.SIZE]  one image size in pixels; the preset is called NAME-SIZE, or NAME where there is one
    settings            steps, strategy options, and sampling arguments under the authors' names; the strategy
                        where a training-free one decodes the network
"""

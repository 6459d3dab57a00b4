"""The harness: runs cells and keeps their results. Rooms, each importing only those named after it:

cli commands  regress sweep train  lossiness measure cost  subject  quality images weights  cell machine
"""

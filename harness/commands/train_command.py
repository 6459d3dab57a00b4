import argparse
SUMMARY="x"
def add_arguments(c: argparse.ArgumentParser)->None: ...
def run(o: argparse.Namespace)->int: return 0

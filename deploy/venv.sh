#!/bin/sh
# Creates a virtual environment with the packages of a requirements file, unless it already exists. Only this step needs
# the network.
# venv.sh DIRECTORY REQUIREMENTS
set -eu
folder=$1
requirements=$2
if ! cmp -s "$requirements" "$folder/requirements.txt"; then
    python3 -m venv --clear "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
    cp "$requirements" "$folder/requirements.txt"
fi

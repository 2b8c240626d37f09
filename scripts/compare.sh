#!/usr/bin/env bash
# Methods head to head, and their table: bash scripts/compare.sh DATASET... [options] [-- KEY VALUE...]
# It is `fair compare`; --help explains the arguments.
exec bash "$(dirname -- "${BASH_SOURCE[0]}")/fair.sh" compare "$@"

#!/usr/bin/env bash
# Installs the Debian packages that some tests need and pip cannot bring; does nothing where they are there.
#
#   orthanc, orthanc-dicomweb          a PACS to store to and read from (tests/app)
#   chromium                           a browser for the pages we serve (tests/app, tests/viewer)
#   libegl1, libegl-mesa0, libgl1-mesa-dri   off-screen drawing of 3D Slicer's views (tests/slicer)
#
# bash scripts/install_system_packages.sh      as root, or as a user who may use sudo
set -euo pipefail

wanted=(orthanc orthanc-dicomweb chromium libegl1 libegl-mesa0 libgl1-mesa-dri)
missing=()
for package in "${wanted[@]}"; do
    dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    echo 'system packages: all there'
    exit 0
fi
echo "system packages: installing ${missing[*]}"
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
# A package's own service (Orthanc on all interfaces) must not start: tests start their own, on loopback.
policy=/usr/sbin/policy-rc.d
ours=false
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod +x "$policy"
    ours=true
fi
status=0
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" || status=$?
if $ours; then "${as_root[@]}" rm -f "$policy"; fi
exit $status

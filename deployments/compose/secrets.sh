#!/bin/sh
# Makes everything secret that a cluster needs, once: secrets.sh PATH-OF-DOTRINGCTL FOLDER
set -eu
ctl=$1
dir=$2
[ ! -e "$dir/admin.token" ] || { echo "$dir is made already" >&2; exit 1; }
umask 077
mkdir -p "$dir"
"$ctl" cert authority "$dir"
"$ctl" cert node node --authority "$dir"
"$ctl" cert gateway gateway --authority "$dir" --host localhost --host 127.0.0.1 --host gateway1 --host gateway2 --host dotring
"$ctl" cert client metrics --authority "$dir"
cat "$dir/gateway.pem" "$dir/gateway.key" > "$dir/balancer.pem"
"$ctl" keyring new "$dir/gossip.json"
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$dir/context.key"
echo >> "$dir/context.key"
"$ctl" token admin --file "$dir/access.yaml" --allow =get,put,delete,admin > "$dir/admin.token"
# Containers read these as another user.
chmod 0644 "$dir"/*.pem "$dir"/*.key "$dir"/gossip.json "$dir"/access.yaml
chmod 0600 "$dir/ca.key" "$dir/admin.token"
echo "made $dir; the token in admin.token may do everything, and ca.key belongs on no server"

#!/bin/bash
# Ends the cluster, and removes everything of it but the built programs and the root of the agent's image: the processes of its pods by
# their cgroups, its own by their files and command lines. It does nothing if there is none.
L=${KUBE_LAB:-$HOME/.cache/cairn/kube}
end() {
    for name in "$@"; do
        pid=$(cat "$L/run/$name.pid" 2>/dev/null) || continue
        # The number may belong to another process by now.
        if tr '\0' ' ' < "/proc/$pid/cmdline" 2>/dev/null | grep -qE "$L|tests/kube/inner.sh"; then
            kill "$pid"
        fi
    done
    sleep 2
}

end kubelet cm sched apiserver
for group in /sys/fs/cgroup/pids/kubepods /sys/fs/cgroup/kubepods; do
    [ -d "$group" ] && find "$group" -name cgroup.procs -exec cat {} + | xargs -r kill -9 2>/dev/null
done
sleep 1
for pid in $(pgrep -f "containerd-shim-runc-v2.*$L/run/containerd.sock"); do
    kill -9 "$pid"
done
end containerd etcd up
for group in /sys/fs/cgroup/*/kubepods /sys/fs/cgroup/kubepods; do
    [ -d "$group" ] && find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
done
if ip netns list | grep -q '^labkube'; then
    ip netns delete labkube
    ip netns list | awk '/^cni-/ {print $1}' | xargs -r -n 1 ip netns delete
fi
rm -rf "$L/run" "$L/log" "$L/var" "$L/etc"
find "$L/img" -mindepth 1 -maxdepth 1 -not -name agent.tar -exec rm -rf {} + 2>/dev/null
# Where it mounted its own directories, in a namespace.
rmdir /var/lib/kubelet /var/log/containers 2>/dev/null
exit 0

#!/bin/busybox sh
# The first process of the test VM: mounts what a machine has, runs /mwb/job (or
# a shell) with its outputs on two ports to the host, tells its exit code on the
# console and ends the VM.
B=/bin/busybox
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
$B mount -t proc proc /proc
$B mount -t sysfs sys /sys
$B mount -t devtmpfs dev /dev
$B mkdir -p /dev/pts /dev/shm /run/netns
$B mount -t devpts devpts /dev/pts
$B mount -t tmpfs shm /dev/shm
$B mount -t bpf bpf /sys/fs/bpf
$B mount -t cgroup2 cgroup /sys/fs/cgroup
$B mount -t debugfs debug /sys/kernel/debug 2>/dev/null
$B mount -t tracefs trace /sys/kernel/tracing 2>/dev/null
# Built in from 6.12 on.
$B modprobe -a virtio_pci virtio_console 2>/dev/null
# Its node /dev/net/tun: elsewhere udev makes it, and the first use loads it.
$B modprobe tun 2>/dev/null
$B ifconfig lo 127.0.0.1 up
echo 1 > /proc/sys/net/core/bpf_jit_enable

# mwb-vm: what the host reads.
say() { echo "mwb-vm: $*" > /dev/console; }

# The device of the port with this name; on 6.1 names come late.
port() {
    n=0
    while [ $n -lt 100 ]; do
        for p in /sys/class/virtio-ports/*; do
            if [ "$($B cat "$p/name" 2>/dev/null)" = "$1" ] && [ -e "/dev/${p##*/}" ]; then
                echo "/dev/${p##*/}"
                return
            fi
        done
        $B sleep 0.05
        n=$((n + 1))
    done
    # Nothing could be told to the host: better no result than half of one.
    say "no port $1"
    $B poweroff -f
}

case "$($B cat /proc/cmdline)" in
*mwb.shell*)
    export TERM="${TERM_OF_HOST:-linux}"
    say "up $($B uname -r)"
    $B setsid $B cttyhack /bin/bash -l
    code=$?
    ;;
*)
    out=$(port out)
    errors=$(port errors)
    say "up $($B uname -r) after $($B cut -d' ' -f1 /proc/uptime) s"
    # Quiet until here: a console is slow. From now on what the kernel has to say
    # is what the host shows of a guest that does not end well.
    $B dmesg -n 7
    /bin/bash /mwb/job < /dev/null > "$out" 2> "$errors"
    code=$?
    ;;
esac
# No word of the kernel's may come into the middle of the result. Opening the console
# has the kernel write what it still has to say.
true > /dev/console
$B dmesg -n 1
say "exit $code"
# QEMU ends with 2n + 1; success is told from QEMU's own failure by the 16.
[ $code -gt 110 ] && code=110
/mwb/vmexit $((code + 16))
exec $B poweroff -f

# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Kernel and initramfs of the lab's nodes, made from the installed Debian packages and kept in a
# cache folder of this user. Sourced by deploy/lab, which defines die().

lab_kernel_version() { # newest installed kernel that has its modules, or the one asked for
	local want=$1 image
	if [[ -n $want ]]; then
		[[ -r /boot/vmlinuz-$want ]] || die "no kernel /boot/vmlinuz-$want"
		[[ -d /lib/modules/$want ]] || die "no modules /lib/modules/$want"
		echo "$want"
		return
	fi
	while read -r image; do
		[[ -r $image && -d /lib/modules/${image#/boot/vmlinuz-} ]] || continue
		echo "${image#/boot/vmlinuz-}"
		return
	done < <(find /boot -maxdepth 1 -name 'vmlinuz-*-amd64' ! -name '*-cloud-*' | sort -rV)
	die "no kernel with modules in /boot: install the Debian package linux-image-amd64"
}

lab_cache_dir() { # a folder that only this user can write; its name can be guessed, so look twice
	local dir=${TMPDIR:-/tmp}/godwit-lab-cache.$UID
	mkdir -m 0700 "$dir" 2>/dev/null || true
	[[ -d $dir && ! -L $dir && -O $dir ]] || die "cache folder $dir is not ours"
	echo "$dir"
}

# The kernel file of Debian unpacks itself, which costs seconds on a software CPU: hand QEMU the
# unpacked ELF (its PVH entry) instead. Anything unexpected: use the file as it is.
lab_unpack_kernel() {
	local image=$1 out=$2 sectors offset length start tool
	sectors=$(od -An -tu1 -j497 -N1 "$image")
	offset=$(od -An -tu4 -j584 -N4 "$image")
	length=$(od -An -tu4 -j588 -N4 "$image")
	start=$(((sectors + 1) * 512 + offset))
	case $(od -An -tx1 -j"$start" -N4 "$image") in
	' fd 37 7a 58') tool=xz ;;
	' 28 b5 2f fd') tool=zstd ;;
	' 1f 8b '*) tool=gzip ;;
	*) tool= ;;
	esac
	# The last four bytes of the payload are its unpacked size, not data.
	if [[ -n $tool ]] && command -v "$tool" >/dev/null &&
		head -c "$((start + length - 4))" "$image" | tail -c "$((length - 4))" |
		"$tool" -dc >"$out" 2>/dev/null &&
		[[ $(head -c 4 "$out") == $'\x7fELF' ]]; then
		return
	fi
	cp "$image" "$out"
}

lab_make_initrd() {
	local version=$1 out=$2 init=$3 work path
	work=$(mktemp -d "${out%/*}/initrd.XXXXXX")
	mkdir "$work"/{bin,modules,proc,sys,dev,host,scratch,root}
	cp "$(command -v busybox)" "$work/bin/busybox"
	cp "$init" "$work/init"
	chmod 0755 "$work/init" "$work/bin/busybox"
	while read -r path; do
		cp "$path" "$work/modules/" && echo "${path##*/}" >>"$work/modules/order"
	done < <(modprobe -S "$version" -a --show-depends virtio_pci virtio_console 9pnet_virtio 9p overlay |
		awk '$1 == "insmod" && !seen[$2]++ { print $2 }')
	[[ -s $work/modules/order ]] || die "no 9p and virtio modules for kernel $version"
	(cd "$work" && find . | busybox cpio -o -H newc 2>/dev/null) >"$out"
	rm -rf "$work"
}

# lab_image VERSION INIT: sets image_kernel and image_initrd, built when they are not there yet.
# Several labs may build at once: each makes its own files and renames them into place.
lab_image() {
	local version=$1 init=$2 cache key
	cache=$(lab_cache_dir)
	key=$({
		stat -Lc '%n %s %Y' "/boot/vmlinuz-$version" "/lib/modules/$version" "$(command -v busybox)"
		cat "$init"
	} | sha256sum | head -c 12)
	image_kernel=$cache/kernel-$version-$key
	image_initrd=$cache/initrd-$version-$key
	if [[ ! -s $image_kernel ]]; then
		lab_unpack_kernel "/boot/vmlinuz-$version" "$image_kernel.$$"
		mv "$image_kernel.$$" "$image_kernel"
	fi
	if [[ ! -s $image_initrd ]]; then
		lab_make_initrd "$version" "$image_initrd.$$" "$init"
		mv "$image_initrd.$$" "$image_initrd"
	fi
}

"""Bags to files and back."""

from skfisher.bags.files import MANIFEST, read_arrays, write_arrays

__all__ = ["SavedBags"]

SAVE_BYTES = 2**24


class SavedBags:
    """Base class of `Bags`, with the methods that write and read files."""

    def save(self, folder):
        """Write the bags to plain ``.npy`` files that any program can read.

        ``manifest.json`` names the two files and holds their checksums: ``values-TOKEN.npy`` holds
        the descriptors, one bag after the other, and ``lengths-TOKEN.npy`` the number of
        descriptors of each bag; the token is new in every save. The manifest is replaced last, in
        one step. Readers find the old bags or the new, also after a crash; of several saves to a
        folder, the last to finish wins.

        Memory stays bounded, so bags over a memory map may be larger than memory, and may be
        saved to their own folder.

        Parameters
        ----------
        folder : str or path-like
            Created if missing. Bags in it are replaced. Their files, and those of interrupted
            saves, are deleted; on Windows, as soon as no program has them mapped.
        """
        n_rows = max(1, SAVE_BYTES // max(1, self.n_features * self.dtype.itemsize))
        lengths = self.lengths
        write_arrays(
            folder,
            {
                "values": (self.blocks(n_rows), self.dtype, (int(lengths.sum()), self.n_features)),
                "lengths": ([lengths], lengths.dtype, lengths.shape),
            },
        )

    @classmethod
    def load(cls, folder, mmap_mode="r", *, verify=False):
        """Open bags that `save` wrote.

        Parameters
        ----------
        folder : str or path-like
            Without a manifest, it holds the plain files ``values.npy`` and ``lengths.npy``.
        mmap_mode : {"r", "c", "r+", None}, default="r"
            How to map the descriptors, as in :func:`numpy.load`: by default they are read
            from the file when needed and cannot be written. None reads them now. What is
            written through ``"r+"`` is in the file at once, and its checksum no longer fits.
        verify : bool, default=False
            Whether to read all descriptors and compare their checksum. The checksum of the lengths
            is always compared.

        Returns
        -------
        bags : Bags

        Raises
        ------
        FileNotFoundError
            If a file is missing.
        ValueError
            If a file is damaged, holds Python objects, or does not fit the others; if `verify` is
            set but there are no checksums.

        Notes
        -----
        A mapped file must not be made shorter while it is in use: the operating system ends a
        program that reads where the file has gone (SIGBUS). `save` never does so: it writes
        new files.
        """
        if mmap_mode not in ("r", "c", "r+", None):
            raise ValueError(f"mmap_mode={mmap_mode!r} must be 'r', 'c', 'r+' or None.")
        modes = {"values": mmap_mode, "lengths": None}
        arrays, has_manifest = read_arrays(folder, modes, verify=modes if verify else ["lengths"])
        if verify and not has_manifest:
            raise ValueError(
                f"{folder} holds no {MANIFEST} with checksums to verify: load the bags without, "
                "and save them again."
            )
        try:
            return cls.from_lengths(arrays["values"], arrays["lengths"])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{folder} does not hold bags: {error}") from error

//! One address type for both families: IPv4 is kept in its IPv6-mapped form, so that a key has one layout.
//!
//! Invariant: the words are in network byte order, exactly as the kernel's `user_ip6`, `local_ip6` and `remote_ip6`.

/// An IP address in its 16-byte form (`::ffff:a.b.c.d` for IPv4).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Addr {
    words: [u32; 4],
}

const MAPPED: u32 = 0x0000_ffff_u32.to_be();

impl Addr {
    /// No address: what a pod without that family has. Equal to `::`.
    pub const NONE: Addr = Addr { words: [0; 4] };
    /// `::1`.
    pub const LOCALHOST6: Addr = Addr { words: [0, 0, 0, 1_u32.to_be()] };
    /// `127.0.0.1`.
    pub const LOCALHOST4: Addr = Addr::v4(0x7f00_0001_u32.to_be());

    /// From an IPv4 address in network byte order.
    #[inline(always)]
    pub const fn v4(word: u32) -> Addr {
        Addr { words: [0, 0, MAPPED, word] }
    }

    /// From the four words of an IPv6 address in network byte order; a mapped address thereby is its IPv4 self.
    #[inline(always)]
    pub const fn v6(words: [u32; 4]) -> Addr {
        Addr { words }
    }

    /// The four words in network byte order.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        self.words
    }

    /// The IPv4 address in network byte order; meaningful only when `is_v4`.
    #[inline(always)]
    pub const fn v4_word(&self) -> u32 {
        self.words[3]
    }

    /// Is this IPv4 (mapped included)?
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == MAPPED
    }

    /// `127.0.0.0/8` or `::1`.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        if self.is_v4() { u32::from_be(self.words[3]) >> 24 == 127 } else { self.is_v6_localhost() }
    }

    /// `0.0.0.0` or `::`: connecting there means connecting to oneself.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        self.words[3] == 0 && (self.is_v4() || self.is_zero())
    }

    /// `fe80::/10`. The scope is not visible to the hook, and such an address has no meaning without one.
    #[inline(always)]
    pub const fn is_v6_link_local(&self) -> bool {
        u32::from_be(self.words[0]) >> 22 == 0xfe80 >> 6
    }

    /// Is this `::`, which also stands for "no address"?
    #[inline(always)]
    pub const fn is_zero(&self) -> bool {
        self.words[0] | self.words[1] | self.words[2] | self.words[3] == 0
    }

    /// Word-wise equality: `==` on arrays becomes a `bcmp` call, which the kernel does not have.
    #[inline(always)]
    pub const fn same(&self, other: &Addr) -> bool {
        self.words[0] == other.words[0]
            && self.words[1] == other.words[1]
            && self.words[2] == other.words[2]
            && self.words[3] == other.words[3]
    }

    #[inline(always)]
    const fn is_v6_localhost(&self) -> bool {
        self.words[0] | self.words[1] | self.words[2] == 0 && u32::from_be(self.words[3]) == 1
    }
}

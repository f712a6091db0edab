// One training step of the WaveNet autoencoder on a processor with AMX. Matrix products
// are computed in bfloat16 on tiles; sums, the residual and skip streams, weights, Adam
// and averages in float32. Built with -DREAL=float, it computes everything in float32,
// for comparison with the Keras model. train.py builds and drives it.
//
// Each thread processes one crop. Arrays are [time][channels]. The input of a dilated
// layer lies after rows of zeros that are never written (in the encoder, between such
// rows), so a tap is the same matrix some rows further up. For the gradients of weights,
// which are sums over time, one factor is transposed and the other has pairs of times
// interleaved, as tiles require.
#include <immintrin.h>
#include <omp.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>
#ifndef REAL
#define REAL uint16_t
#endif
typedef REAL T;
constexpr bool BF = sizeof(T) == 2;
// Widths of the decoder, its skips and the encoder, set by the build; multiples of 32.
constexpr int W = WIDTH, S = SKIP_WIDTH, E = AE_WIDTH;
constexpr int Z = 16, Q = 256, HOP = 512;  // bottleneck, classes, samples per frame
constexpr int PITCHES = 128;
constexpr int R = W + S;                   // res and skip are one product

// Allocates from huge pages: with small ones, half the time is spent on address
// translation.
static void* arena(size_t n) {
  static char *at = nullptr, *end = nullptr;
  n = (n + 4096 + 64) / 64 * 64;
  if (at + n > end) {
    size_t size =
        n > ((size_t)64 << 20) ? (n + (2 << 20)) >> 21 << 21 : (size_t)64 << 20;
    at = (char*)aligned_alloc(2 << 20, size);
    madvise(at, size, MADV_HUGEPAGE);
    memset(at, 0, size);
    end = at + size;
  }
  void* p = at;
  at += n;
  return p;
}
static T* alloc(size_t n) { return (T*)arena(n * sizeof(T)); }
static float* allocf(size_t n) { return (float*)arena(n * 4); }
static inline __m512 ld(const float* p) { return _mm512_loadu_ps(p); }
static inline void st(float* p, __m512 v) { _mm512_storeu_ps(p, v); }
static inline __m512 ld(const uint16_t* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(
      _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}
static inline void st(uint16_t* p, __m512 v) {
  _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(v));
}
static inline void st1(float* p, float v) { *p = v; }
static inline void st1(uint16_t* p, float v) {
  uint32_t u;
  memcpy(&u, &v, 4);
  u += 0x7fff + ((u >> 16) & 1);
  *p = u >> 16;
}

template <bool rough = false>
static inline __m512 vexp(__m512 x) {
  x = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896f));
  x = _mm512_max_ps(_mm512_set1_ps(-126.f), _mm512_min_ps(x, _mm512_set1_ps(126.f)));
  __m512 n = _mm512_roundscale_ps(x, 0), f = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(9.6181291e-3f);
  if (!rough) {  // else the error is 4e-5, far below bfloat16's
    p = _mm512_fmadd_ps(_mm512_set1_ps(1.5403530e-4f), f,
                        _mm512_set1_ps(1.3333558e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.6181291e-3f));
  }
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5504109e-2f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022651e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.f));
  return _mm512_scalef_ps(p, n);
}
static inline __m512 vsig(__m512 x) {
  __m512 one = _mm512_set1_ps(1.f),
         d = _mm512_add_ps(one, vexp<BF>(_mm512_sub_ps(_mm512_setzero_ps(), x)));
  return BF ? _mm512_rcp14_ps(d) : _mm512_div_ps(one, d);
}

// ---- products
// B is packed in blocks of 32 k by 16 n: element (k, n) of a block -> offset
static inline int place(int k, int n) {
  return BF ? (k / 2) * 32 + n * 2 + (k & 1) : k * 16 + n;
}
// src is [K][ld], or transposed: element (k, n) = src[n * ld + k]. K and N are those of
// the packed matrix.
static void pack(const float* src, int ld_, int K, int N, bool transposed, T* dst,
                 int ntiles, int nt0, int kb0) {
  if constexpr (BF) {
    for (int n = 0; n < N; n += 16)
      for (int k = 0; k < K; k += 16) {
        T* d =
            dst + (size_t)((kb0 + k / 32) * ntiles + nt0 + n / 16) * 512 + k % 32 * 16;
        if (!transposed)
          for (int q = 0; q < 16; q += 2) {
            const float* p = src + (size_t)(k + q) * ld_ + n;
            __m512i a = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(ld(p))),
                    b = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(ld(p + ld_)));
            _mm512_storeu_si512(d + q * 16,
                                _mm512_or_si512(a, _mm512_slli_epi32(b, 16)));
          }
        else
          for (int q = 0; q < 16; q++) {
            alignas(32) uint32_t v[8];
            _mm256_store_si256((__m256i*)v, (__m256i)_mm512_cvtneps_pbh(
                                                ld(src + (size_t)(n + q) * ld_ + k)));
            for (int z = 0; z < 8; z++) ((uint32_t*)d)[z * 16 + q] = v[z];
          }
      }
    return;
  }
  for (int k = 0; k < K; k++)
    for (int n = 0; n < N; n++)
      st1(dst + (size_t)((kb0 + k / 32) * ntiles + nt0 + n / 16) * 512 +
              place(k % 32, n % 16),
          transposed ? src[n * ld_ + k] : src[k * ld_ + n]);
}
// C[32][N] = sum over k-blocks of A_j[32][32] B_j
static inline void gemm32(int nk, const T* const* A, int lda, const T* B, int N,
                          float* C, int ldc) {
  int nt = N / 16;
  if constexpr (BF) {
    for (int n = 0; n < nt; n += 2) {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
      for (int j = 0; j < nk; j++) {
        const T* b = B + (size_t)(j * nt + n) * 512;
        _tile_loadd(4, A[j], lda * 2);
        _tile_loadd(5, A[j] + 16 * lda, lda * 2);
        _tile_loadd(6, b, 64);
        _tile_loadd(7, b + 512, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
      _tile_stored(0, C + n * 16, ldc * 4);
      _tile_stored(1, C + n * 16 + 16, ldc * 4);
      _tile_stored(2, C + 16 * ldc + n * 16, ldc * 4);
      _tile_stored(3, C + 16 * ldc + n * 16 + 16, ldc * 4);
    }
  } else {
    for (int r = 0; r < 32; r++)
      for (int n = 0; n < nt; n++) {
        __m512 c = _mm512_setzero_ps();
        for (int j = 0; j < nk; j++) {
          const float* a = (const float*)A[j] + r * lda;
          const float* b = (const float*)B + (size_t)(j * nt + n) * 512;
          for (int k = 0; k < 32; k++)
            c = _mm512_fmadd_ps(_mm512_set1_ps(a[k]), ld(b + k * 16), c);
        }
        st(C + r * ldc + n * 16, c);
      }
  }
}
// pairs of rows interleaved: rows [n][N] (ld) -> V [n/2][NV][2] at column n0
static void interleave(const T* rows, int ld_, int n, int N, T* V, int NV, int n0) {
  if constexpr (BF) {
    alignas(64) uint16_t lo[32], hi[32];
    for (int i = 0; i < 16; i++) {
      lo[2 * i] = i;
      lo[2 * i + 1] = 32 + i;
      hi[2 * i] = 16 + i;
      hi[2 * i + 1] = 48 + i;
    }
    __m512i il = _mm512_load_si512(lo), ih = _mm512_load_si512(hi);
    for (int t = 0; t < n; t += 2)
      for (int c = 0; c < N; c += 32) {
        __m512i a = _mm512_loadu_si512(rows + t * ld_ + c),
                b = _mm512_loadu_si512(rows + (t + 1) * ld_ + c);
        T* d = V + (size_t)(t / 2 * NV + n0 + c) * 2;
        _mm512_storeu_si512(d, _mm512_permutex2var_epi16(a, il, b));
        _mm512_storeu_si512(d + 32, _mm512_permutex2var_epi16(a, ih, b));
      }
  } else
    for (int t = 0; t < n; t++)
      memcpy(V + (size_t)t * NV + n0, rows + t * ld_, N * sizeof(T));
}
// rows [n][C] -> AT [C][ldt]
static void transpose(const T* rows, int ld_, int n, int C, T* AT, int ldt) {
  if constexpr (BF) {
    for (int t = 0; t < n; t += 8)
      for (int c = 0; c < C; c += 8) {
        __m128i r[8], s[8];
        for (int i = 0; i < 8; i++)
          r[i] = _mm_loadu_si128((const __m128i*)(rows + (t + i) * ld_ + c));
        for (int i = 0; i < 4; i++) {
          s[2 * i] = _mm_unpacklo_epi16(r[2 * i], r[2 * i + 1]);
          s[2 * i + 1] = _mm_unpackhi_epi16(r[2 * i], r[2 * i + 1]);
        }
        // s0: c0..3 of t0,t1; s1: c4..7; s2: c0..3 of t2,t3 ...
        __m128i u[8];
        for (int h = 0; h < 2; h++) {  // h: channels 4h..4h+3
          __m128i a = s[h], b = s[2 + h], c2 = s[4 + h], d = s[6 + h];
          __m128i ab0 = _mm_unpacklo_epi32(a, b), ab1 = _mm_unpackhi_epi32(a, b),
                  cd0 = _mm_unpacklo_epi32(c2, d), cd1 = _mm_unpackhi_epi32(c2, d);
          u[4 * h] = _mm_unpacklo_epi64(ab0, cd0);
          u[4 * h + 1] = _mm_unpackhi_epi64(ab0, cd0);
          u[4 * h + 2] = _mm_unpacklo_epi64(ab1, cd1);
          u[4 * h + 3] = _mm_unpackhi_epi64(ab1, cd1);
        }
        for (int i = 0; i < 8; i++)
          _mm_storeu_si128((__m128i*)(AT + (size_t)(c + i) * ldt + t), u[i]);
      }
  } else
    for (int t = 0; t < n; t++)
      for (int c = 0; c < C; c++) AT[(size_t)c * ldt + t] = rows[t * ld_ + c];
}
// dW[M][N] += sum_t AT[m][t] V[t][n0 + n]
static void wgrad(const T* AT, int ldt, int M, const T* V, int NV, int n0, int N, int n,
                  float* dW, int ldw) {
  if constexpr (BF) {
    alignas(64) float c[4][256];
    for (int m = 0; m < M; m += 32)
      for (int k = 0; k < N; k += 32) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int t = 0; t < n; t += 32) {
          const T* b = V + (size_t)(t / 2 * NV + n0 + k) * 2;
          _tile_loadd(4, AT + (size_t)m * ldt + t, ldt * 2);
          _tile_loadd(5, AT + (size_t)(m + 16) * ldt + t, ldt * 2);
          _tile_loadd(6, b, NV * 4);
          _tile_loadd(7, b + 32, NV * 4);
          _tile_dpbf16ps(0, 4, 6);
          _tile_dpbf16ps(1, 4, 7);
          _tile_dpbf16ps(2, 5, 6);
          _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, c[0], 64);
        _tile_stored(1, c[1], 64);
        _tile_stored(2, c[2], 64);
        _tile_stored(3, c[3], 64);
        for (int q = 0; q < 4; q++)
          for (int i = 0; i < 16; i++) {
            float* d = dW + (size_t)(m + q / 2 * 16 + i) * ldw + k + q % 2 * 16;
            st(d, _mm512_add_ps(ld(d), ld(c[q] + i * 16)));
          }
      }
  } else
    for (int m = 0; m < M; m++)
      for (int k = 0; k < N; k += 16) {
        __m512 c = ld(dW + (size_t)m * ldw + k);
        for (int t = 0; t < n; t++)
          c = _mm512_fmadd_ps(_mm512_set1_ps((float)AT[(size_t)m * ldt + t]),
                              ld((const float*)V + (size_t)t * NV + n0 + k), c);
        st(dW + (size_t)m * ldw + k, c);
      }
}

// The offset of each variable in the flat arrays.
struct Dec {
  int64_t dW, db, cW, cb, rW, rb, kW, kb;
};
struct Enc {
  int64_t vW, vb, wW, wb;
};
struct Net {
  int L, stages, AL, astages, n, B;  // n: samples per crop
  int64_t size;
  int64_t sW, sb, ssW, ssb, o1W, o1b, coW, cob, lW, lb, asW, asb, abW, abb;
  int64_t head;  // of the pitch head's [Z + 1][PITCHES] weights, the last row the biases
  std::vector<Dec> dec;
  std::vector<Enc> enc;
  float *P, *M, *V, *A;
  std::vector<float*> G;
  // Packed weights: f for the forward pass, b (transposed) for the backward pass.
  std::vector<T*> fD, bD, fR, bR, fV, bV, fW, bW;
  T *fSS, *bSS, *fO, *bO, *fL, *bL;
  struct Work {
    std::vector<T*> l, sg, th, a, r;
    T *sr, *o, *dls, *dlsV, *dpre, *dpreV, *lT, *d, *dT, *dlogV, *dlog, *doR, *doV,
        *adpre, *adpreV, *aT, *rT, *dhR, *dhV;
    float *l32, *s32, *x, *c;
    double loss, pitch_loss;
    float z[64 * 16], dz[64 * 16], hm[64 * E];  // for up to 64 frames
  };
  std::vector<Work> work;
  int PD, PA;
};
static inline int dil(int i, int stages) { return 1 << (i % stages); }

// off: offsets in the order of the fields of Net, Dec and Enc; the head's is the last, or 0
// if there is none. `size`: a multiple of 16.
extern "C" Net* net_new(int L, int stages, int AL, int astages, int n, int B,
                        int64_t size, const int64_t* off) {
  Net* N = new Net;
  N->L = L;
  N->stages = stages;
  N->AL = AL;
  N->astages = astages;
  N->n = n;
  N->B = B;
  N->size = size;
  const int64_t* o = off;
  N->sW = *o++;
  N->sb = *o++;
  N->ssW = *o++;
  N->ssb = *o++;
  N->o1W = *o++;
  N->o1b = *o++;
  N->coW = *o++;
  N->cob = *o++;
  N->lW = *o++;
  N->lb = *o++;
  N->asW = *o++;
  N->asb = *o++;
  N->abW = *o++;
  N->abb = *o++;
  for (int i = 0; i < L; i++) {
    Dec d;
    memcpy(&d, o, sizeof d);
    o += 8;
    N->dec.push_back(d);
  }
  for (int i = 0; i < AL; i++) {
    Enc d;
    memcpy(&d, o, sizeof d);
    o += 4;
    N->enc.push_back(d);
  }
  N->head = *o;
  N->P = allocf(size);
  N->M = allocf(size);
  N->V = allocf(size);
  N->A = allocf(size);
  for (int b = 0; b < B; b++) N->G.push_back(allocf(size));
  for (int i = 0; i < L; i++) {
    N->fD.push_back(alloc(3 * W * 2 * W));
    N->bD.push_back(alloc(3 * W * 2 * W));
    N->fR.push_back(alloc(W * R));
    N->bR.push_back(alloc(W * R));
  }
  for (int i = 0; i < AL; i++) {
    N->fV.push_back(alloc(3 * E * E));
    N->bV.push_back(alloc(3 * E * E));
    N->fW.push_back(alloc(E * E));
    N->bW.push_back(alloc(E * E));
  }
  N->fSS = alloc(W * S);
  N->bSS = alloc(W * S);
  N->fO = alloc(S * S);
  N->bO = alloc(S * S);
  N->fL = alloc(S * Q);
  N->bL = alloc(S * Q);
  int PD = N->PD = 2 * (1 << (stages - 1)), PA = N->PA = 1 << (astages - 1);
  N->work.resize(B);
  for (auto& w : N->work) {
    for (int i = 0; i <= L; i++) {
      w.l.push_back(alloc((PD + n) * W));
      w.sg.push_back(alloc(n * W));
      w.th.push_back(alloc(n * W));
    }
    for (int i = 0; i < AL; i++) {
      w.a.push_back(alloc((2 * PA + n) * E));
      w.r.push_back(alloc(n * E));
    }
    w.sr = alloc(n * S);
    w.o = alloc(n * S);
    w.dls = alloc(n * R);
    w.dlsV = alloc(n * R);
    w.dpre = alloc((PD + n) * 2 * W);
    w.dpreV = alloc(n * 2 * W);
    w.lT = alloc(W * (PD + n + 32));
    w.d = alloc(n * W);
    w.dT = alloc((W > S ? W : S) * (n + 32));
    w.dlogV = alloc(n * Q);
    w.dlog = alloc(32 * Q);
    w.doR = alloc(n * S);
    w.doV = alloc(n * S);
    w.adpre = alloc((2 * PA + n) * E);
    w.adpreV = alloc(n * E);
    w.aT = alloc(E * (2 * PA + n + 32));
    w.rT = alloc(E * (n + 32));
    w.dhR = alloc(n * E);
    w.dhV = alloc(n * E);
    w.l32 = allocf(n * W);
    w.s32 = allocf(n * S);
    w.x = allocf(n + 8);
    w.c = allocf(n / HOP * 2 * W + 1024);
  }
  if (BF) syscall(SYS_arch_prctl, 0x1023, 18);  // request the tiles from Linux
  return N;
}
// 0: weights, 1 and 2: Adam's moments, 3: averages, 4: gradients.
extern "C" float* net_array(Net* N, int which) {
  return which == 0   ? N->P
         : which == 1 ? N->M
         : which == 2 ? N->V
         : which == 3 ? N->A
                      : N->G[which - 4];
}

static void tiles() {
  if constexpr (BF) {
    struct {
      uint8_t palette, start, rsv[14];
      uint16_t colsb[16];
      uint8_t rows[16];
    } c;
    memset(&c, 0, sizeof c);
    c.palette = 1;
    for (int i = 0; i < 8; i++) {
      c.colsb[i] = 64;
      c.rows[i] = 16;
    }
    _tile_loadconfig(&c);
  }
}
static void pack_all(Net* N) {
  const float* P = N->P;
#pragma omp for schedule(dynamic) nowait
  for (int i = 0; i < N->L; i++) {
    const Dec& d = N->dec[i];
    for (int k = 0; k < 3; k++) {
      const float* w = P + d.dW + k * W * 2 * W;
      pack(w, 2 * W, W, 2 * W, false, N->fD[i], 2 * W / 16, 0, k * W / 32);
      pack(w, 2 * W, 2 * W, W, true, N->bD[i], W / 16, 0, k * 2 * W / 32);
    }
    pack(P + d.rW, W, W, W, false, N->fR[i], R / 16, 0, 0);
    pack(P + d.kW, S, W, S, false, N->fR[i], R / 16, W / 16, 0);
    pack(P + d.rW, W, W, W, true, N->bR[i], W / 16, 0, 0);
    pack(P + d.kW, S, S, W, true, N->bR[i], W / 16, 0, W / 32);
  }
#pragma omp for schedule(dynamic) nowait
  for (int i = 0; i < N->AL; i++) {
    const Enc& d = N->enc[i];
    for (int k = 0; k < 3; k++) {
      pack(P + d.vW + k * E * E, E, E, E, false, N->fV[i], E / 16, 0, k * E / 32);
      pack(P + d.vW + k * E * E, E, E, E, true, N->bV[i], E / 16, 0, k * E / 32);
    }
    pack(P + d.wW, E, E, E, false, N->fW[i], E / 16, 0, 0);
    pack(P + d.wW, E, E, E, true, N->bW[i], E / 16, 0, 0);
  }
#pragma omp for schedule(dynamic)
  for (int i = 0; i < 3; i++) {
    if (i == 0) {
      pack(P + N->ssW, S, W, S, false, N->fSS, S / 16, 0, 0);
      pack(P + N->ssW, S, S, W, true, N->bSS, W / 16, 0, 0);
    }
    if (i == 1) {
      pack(P + N->o1W, S, S, S, false, N->fO, S / 16, 0, 0);
      pack(P + N->o1W, S, S, S, true, N->bO, S / 16, 0, 0);
    }
    if (i == 2) {
      pack(P + N->lW, Q, S, Q, false, N->fL, Q / 16, 0, 0);
      pack(P + N->lW, Q, Q, S, true, N->bL, S / 16, 0, 0);
    }
  }
}
// The conditioning of each frame with both biases, and its gradients.
static void cond(const float* z, int F, const float* Wc, const float* bc,
                 const float* b, int N, float* c) {
  for (int f = 0; f < F; f++)
    for (int j = 0; j < N; j++) {
      float v = bc[j] + b[j];
      for (int k = 0; k < Z; k++) v += z[f * Z + k] * Wc[k * N + j];
      c[f * N + j] = v;
    }
}
static void cond_back(const float* z, float* dz, int F, const float* Wc,
                      const float* dc, int N, float* gW, float* gbc, float* gb) {
  for (int f = 0; f < F; f++) {
    for (int k = 0; k < Z; k++) {
      float v = 0;
      for (int j = 0; j < N; j++) {
        gW[k * N + j] += z[f * Z + k] * dc[f * N + j];
        v += dc[f * N + j] * Wc[k * N + j];
      }
      dz[f * Z + k] += v;
    }
    for (int j = 0; j < N; j++) {
      gbc[j] += dc[f * N + j];
      gb[j] += dc[f * N + j];
    }
  }
}
static inline void addto(float* p, __m512 v) { st(p, _mm512_add_ps(ld(p), v)); }

// A linear classifier of the pitch on each frame of the embedding. Its loss, in nats per
// frame, is added to the crop's loss `weight` times, so the embedding has to contain the
// pitch. The decoder alone hears the pitch in its past, and asks for little of it.
static void pitch_head(Net* N, Net::Work& w, float* G, int F, int pitch, float weight) {
  const float* P = N->P + N->head;
  float* g = G + N->head;
  for (int f = 0; f < F; f++) {
    const float* z = w.z + f * Z;
    float p[PITCHES], most = -INFINITY, sum = 0;
    for (int j = 0; j < PITCHES; j++) {
      p[j] = P[Z * PITCHES + j];
      for (int k = 0; k < Z; k++) p[j] += z[k] * P[k * PITCHES + j];
      most = std::fmax(most, p[j]);
    }
    for (int j = 0; j < PITCHES; j++) sum += std::exp(p[j] - most);
    w.pitch_loss += (std::log(sum) + most - p[pitch]) / F;
    for (int j = 0; j < PITCHES; j++) {
      float d = (std::exp(p[j] - most) / sum - (j == pitch)) * weight / F;
      g[Z * PITCHES + j] += d;
      for (int k = 0; k < Z; k++) {
        g[k * PITCHES + j] += z[k] * d;
        w.dz[f * Z + k] += P[k * PITCHES + j] * d;
      }
    }
  }
}

// x: companded clean sound [n]; past: the decoder's companded past [n]; label [n]; pitch:
// MIDI number; pitch_weight: 0 for no pitch head
static void crop(Net* N, int b, const float* x, const float* past, const int32_t* label,
                 int pitch, float pitch_weight, float scale) {
  Net::Work& w = N->work[b];
  const float* P = N->P;
  float* G = N->G[b];
  const int n = N->n, F = n / HOP, L = N->L, AL = N->AL, PD = N->PD, PA = N->PA,
            nT = n + 32;  // keeps rows of transposed arrays out of the same cache sets
  memset(G, 0, N->size * 4);
  alignas(64) float acc[32 * 256];
  const T* A[32];
  const __m512 zero = _mm512_setzero_ps();
  // ---- encoder
  float* h = w.l32;  // [n][E]; l32 is free until the decoder starts
  for (int t = 0; t < n; t++)
    for (int c = 0; c < E; c += 16) {
      __m512 v = ld(P + N->asb + c);
      for (int k = 0; k < 3; k++) {
        int u = t + k - 1;
        if (u >= 0 && u < n)
          v = _mm512_fmadd_ps(_mm512_set1_ps(x[u]), ld(P + N->asW + k * E + c), v);
      }
      st(h + t * E + c, v);
      st(w.a[0] + (PA + t) * E + c, _mm512_max_ps(v, zero));
    }
  for (int i = 0; i < AL; i++) {
    int d = dil(i, N->astages);
    const Enc& e = N->enc[i];
    for (int t = 0; t < n; t += 32) {
      for (int k = 0; k < 3; k++)
        for (int q = 0; q < E / 32; q++)
          A[k * E / 32 + q] = w.a[i] + (PA + t + (k - 1) * d) * E + q * 32;
      gemm32(3 * E / 32, A, E, N->fV[i], E, acc, E);
      for (int r = 0; r < 32; r++)
        for (int c = 0; c < E; c += 16)
          st(w.r[i] + (t + r) * E + c,
             _mm512_max_ps(zero, _mm512_add_ps(ld(acc + r * E + c), ld(P + e.vb + c))));
      for (int q = 0; q < E / 32; q++) A[q] = w.r[i] + t * E + q * 32;
      gemm32(E / 32, A, E, N->fW[i], E, acc, E);
      for (int r = 0; r < 32; r++)
        for (int c = 0; c < E; c += 16) {
          __m512 v =
              _mm512_add_ps(ld(h + (t + r) * E + c),
                            _mm512_add_ps(ld(acc + r * E + c), ld(P + e.wb + c)));
          st(h + (t + r) * E + c, v);
          if (i + 1 < AL) st(w.a[i + 1] + (PA + t + r) * E + c, _mm512_max_ps(v, zero));
        }
    }
  }
  for (int f = 0; f < F; f++) {
    for (int c = 0; c < E; c++) {
      float s = 0;
      for (int t = 0; t < HOP; t++) s += h[(f * HOP + t) * E + c];
      w.hm[f * E + c] = s / HOP;
    }
    for (int j = 0; j < Z; j++) {
      float v = P[N->abb + j];
      for (int c = 0; c < E; c++) v += w.hm[f * E + c] * P[N->abW + c * Z + j];
      w.z[f * Z + j] = v;
      w.dz[f * Z + j] = 0;
    }
  }
  // ---- decoder
  float *l = w.l32, *s = w.s32, *c = w.c;
  for (int t = 0; t < n; t++)
    for (int k = 0; k < W; k += 16) {
      __m512 v = ld(P + N->sb + k);
      for (int q = 0; q < 3; q++) {
        int u = t - 1 - (2 - q);
        if (u >= 0)
          v = _mm512_fmadd_ps(_mm512_set1_ps(past[u]), ld(P + N->sW + q * W + k), v);
      }
      st(l + t * W + k, v);
      st(w.l[0] + (PD + t) * W + k, v);
    }
  for (int t = 0; t < n; t += 32) {
    for (int q = 0; q < W / 32; q++) A[q] = w.l[0] + (PD + t) * W + q * 32;
    gemm32(W / 32, A, W, N->fSS, S, acc, S);
    for (int r = 0; r < 32; r++)
      for (int k = 0; k < S; k += 16)
        st(s + (t + r) * S + k, _mm512_add_ps(ld(acc + r * S + k), ld(P + N->ssb + k)));
  }
  for (int i = 0; i < L; i++) {
    int d = dil(i, N->stages);
    const Dec& e = N->dec[i];
    cond(w.z, F, P + e.cW, P + e.cb, P + e.db, 2 * W, c);
    for (int t = 0; t < n; t += 32) {
      for (int k = 0; k < 3; k++)
        for (int q = 0; q < W / 32; q++)
          A[k * W / 32 + q] = w.l[i] + (PD + t - (2 - k) * d) * W + q * 32;
      gemm32(3 * W / 32, A, W, N->fD[i], 2 * W, acc, 2 * W);
      const float* cf = c + t / HOP * 2 * W;
      for (int r = 0; r < 32; r++)
        for (int k = 0; k < W; k += 16) {
          __m512 g = vsig(_mm512_add_ps(ld(acc + r * 2 * W + k), ld(cf + k)));
          __m512 v = _mm512_add_ps(ld(acc + r * 2 * W + W + k), ld(cf + W + k));
          v = _mm512_sub_ps(
              _mm512_mul_ps(_mm512_set1_ps(2.f), vsig(_mm512_add_ps(v, v))),
              _mm512_set1_ps(1.f));
          st(w.sg[i] + (t + r) * W + k, g);
          st(w.th[i] + (t + r) * W + k, v);
          st(w.d + (t + r) * W + k, _mm512_mul_ps(g, v));
        }
      for (int q = 0; q < W / 32; q++) A[q] = w.d + t * W + q * 32;
      gemm32(W / 32, A, W, N->fR[i], R, acc, R);
      for (int r = 0; r < 32; r++) {
        for (int k = 0; k < W; k += 16) {
          __m512 v =
              _mm512_add_ps(ld(l + (t + r) * W + k),
                            _mm512_add_ps(ld(acc + r * R + k), ld(P + e.rb + k)));
          st(l + (t + r) * W + k, v);
          st(w.l[i + 1] + (PD + t + r) * W + k, v);
        }
        for (int k = 0; k < S; k += 16)
          addto(s + (t + r) * S + k,
                _mm512_add_ps(ld(acc + r * R + W + k), ld(P + e.kb + k)));
      }
    }
  }
  // ---- head, forward and backward
  cond(w.z, F, P + N->coW, P + N->cob, P + N->o1b, S, c);
  static thread_local float dc[64 * 2 * R];
  memset(dc, 0, sizeof dc);
  float dsum[S];
  memset(dsum, 0, sizeof dsum);
  double loss = 0;
  for (int t = 0; t < n; t += 32) {
    for (int r = 0; r < 32; r++)
      for (int k = 0; k < S; k += 16)
        st(w.sr + (t + r) * S + k, _mm512_max_ps(zero, ld(s + (t + r) * S + k)));
    for (int q = 0; q < S / 32; q++) A[q] = w.sr + t * S + q * 32;
    gemm32(S / 32, A, S, N->fO, S, acc, S);
    for (int r = 0; r < 32; r++)
      for (int k = 0; k < S; k += 16)
        st(w.o + (t + r) * S + k,
           _mm512_max_ps(zero,
                         _mm512_add_ps(ld(acc + r * S + k), ld(c + t / HOP * S + k))));
    for (int q = 0; q < S / 32; q++) A[q] = w.o + t * S + q * 32;
    gemm32(S / 32, A, S, N->fL, Q, acc, Q);
    for (int r = 0; r < 32; r++) {
      float* a = acc + r * Q;
      __m512 m = _mm512_set1_ps(-1e30f), sum = zero;
      for (int k = 0; k < Q; k += 16) {
        __m512 v = _mm512_add_ps(ld(a + k), ld(P + N->lb + k));
        st(a + k, v);
        m = _mm512_max_ps(m, v);
      }
      int target = label[t + r];
      float mm = _mm512_reduce_max_ps(m), at = a[target < 0 ? 0 : target];
      m = _mm512_set1_ps(mm);
      for (int k = 0; k < Q; k += 16) {
        __m512 v = vexp(_mm512_sub_ps(ld(a + k), m));
        st(a + k, v);
        sum = _mm512_add_ps(sum, v);
      }
      float ss = _mm512_reduce_add_ps(sum);
      if (target >= 0) loss += logf(ss) + mm - at;
      __m512 f = _mm512_set1_ps(target < 0 ? 0 : scale / ss);
      for (int k = 0; k < Q; k += 16) st(a + k, _mm512_mul_ps(ld(a + k), f));
      if (target >= 0) a[target] -= scale;
      for (int k = 0; k < Q; k += 16) {
        __m512 v = ld(a + k);
        addto(G + N->lb + k, v);
        st(w.dlog + r * Q + k, v);
      }
    }
    interleave(w.dlog, Q, 32, Q, w.dlogV + (size_t)t * Q, Q, 0);
    for (int q = 0; q < Q / 32; q++) A[q] = w.dlog + q * 32;
    gemm32(Q / 32, A, Q, N->bL, S, acc, S);
    for (int r = 0; r < 32; r++)
      for (int k = 0; k < S; k += 16) {
        __mmask16 on = _mm512_cmp_ps_mask(ld(w.o + (t + r) * S + k), zero, _CMP_GT_OQ);
        __m512 v = _mm512_maskz_mov_ps(on, ld(acc + r * S + k));
        st(w.doR + (t + r) * S + k, v);
        addto(dc + t / HOP * S + k, v);
      }
    for (int q = 0; q < S / 32; q++) A[q] = w.doR + t * S + q * 32;
    gemm32(S / 32, A, S, N->bO, S, acc, S);
    for (int r = 0; r < 32; r++) {
      for (int k = 0; k < S; k += 16) {
        __mmask16 on = _mm512_cmp_ps_mask(ld(w.sr + (t + r) * S + k), zero, _CMP_GT_OQ);
        __m512 v = _mm512_maskz_mov_ps(on, ld(acc + r * S + k));
        st(w.dls + (t + r) * R + W + k, v);
        addto(dsum + k, v);
      }
      for (int k = 0; k < W; k += 16) st(w.dls + (t + r) * R + k, zero);
    }
  }
  w.loss = loss;
  interleave(w.doR, S, n, S, w.doV, S, 0);
  interleave(w.dls, R, n, R, w.dlsV, R, 0);
  transpose(w.o, S, n, S, w.dT, nT);
  wgrad(w.dT, nT, S, w.dlogV, Q, 0, Q, n, G + N->lW, Q);
  transpose(w.sr, S, n, S, w.dT, nT);
  wgrad(w.dT, nT, S, w.doV, S, 0, S, n, G + N->o1W, S);
  cond_back(w.z, w.dz, F, P + N->coW, dc, S, G + N->coW, G + N->cob, G + N->o1b);
  // ---- decoder, backward; l is now the gradient of the residual stream
  memset(l, 0, n * W * 4);
  for (int i = L - 1; i >= 0; i--) {
    int d = dil(i, N->stages);
    const Dec& e = N->dec[i];
    memset(dc, 0, sizeof dc);
    for (int t = 0; t < n; t += 32) {
      for (int q = 0; q < R / 32; q++) A[q] = w.dls + t * R + q * 32;
      gemm32(R / 32, A, R, N->bR[i], W, acc, W);
      float* df = dc + t / HOP * 2 * W;
      for (int k = 0; k < W; k += 16) {
        __m512 s1 = zero, s2 = zero, s3 = zero;
        for (int r = 0; r < 32; r++) {
          __m512 g = ld(w.sg[i] + (t + r) * W + k), v = ld(w.th[i] + (t + r) * W + k),
                 dd = ld(acc + r * W + k), one = _mm512_set1_ps(1.f);
          __m512 gv = _mm512_mul_ps(g, v);
          st(w.d + (t + r) * W + k, gv);
          __m512 dg = _mm512_mul_ps(_mm512_mul_ps(dd, gv), _mm512_sub_ps(one, g));
          __m512 dv = _mm512_mul_ps(_mm512_mul_ps(dd, g), _mm512_fnmadd_ps(v, v, one));
          st(w.dpre + (t + r) * 2 * W + k, dg);
          st(w.dpre + (t + r) * 2 * W + W + k, dv);
          s1 = _mm512_add_ps(s1, dg);
          s2 = _mm512_add_ps(s2, dv);
          s3 = _mm512_add_ps(s3, ld(l + (t + r) * W + k));
        }
        addto(df + k, s1);
        addto(df + W + k, s2);
        addto(G + e.rb + k, s3);
      }
    }
    for (int k = 0; k < S; k++) G[e.kb + k] += dsum[k];
    cond_back(w.z, w.dz, F, P + e.cW, dc, 2 * W, G + e.cW, G + e.cb, G + e.db);
    transpose(w.d, W, n, W, w.dT, nT);
    wgrad(w.dT, nT, W, w.dlsV, R, 0, W, n, G + e.rW, W);
    wgrad(w.dT, nT, W, w.dlsV, R, W, S, n, G + e.kW, S);
    interleave(w.dpre, 2 * W, n, 2 * W, w.dpreV, 2 * W, 0);
    transpose(w.l[i] + PD * W, W, n, W, w.lT + PD, PD + nT);
    for (int k = 0; k < 3; k++)
      wgrad(w.lT + PD - (2 - k) * d, PD + nT, W, w.dpreV, 2 * W, 0, 2 * W, n,
            G + e.dW + k * W * 2 * W, 2 * W);
    for (int t = 0; t < n; t += 32) {
      for (int k = 0; k < 3; k++)
        for (int q = 0; q < 2 * W / 32; q++)
          A[k * 2 * W / 32 + q] = w.dpre + (t + (2 - k) * d) * 2 * W + q * 32;
      gemm32(3 * 2 * W / 32, A, 2 * W, N->bD[i], W, acc, W);
      for (int r = 0; r < 32; r++)
        for (int k = 0; k < W; k += 16) {
          __m512 v = _mm512_add_ps(ld(l + (t + r) * W + k), ld(acc + r * W + k));
          st(l + (t + r) * W + k, v);
          st(w.dls + (t + r) * R + k, v);
        }
    }
    if (i) interleave(w.dls, R, n, W, w.dlsV, R, 0);
  }
  for (int t = 0; t < n; t += 32) {
    for (int q = 0; q < S / 32; q++) A[q] = w.dls + t * R + W + q * 32;
    gemm32(S / 32, A, R, N->bSS, W, acc, W);
    for (int r = 0; r < 32; r++)
      for (int k = 0; k < W; k += 16) {
        __m512 v = _mm512_add_ps(ld(l + (t + r) * W + k), ld(acc + r * W + k));
        addto(G + N->sb + k, v);
        for (int q = 0; q < 3; q++) {
          int u = t + r - 1 - (2 - q);
          if (u >= 0)
            addto(G + N->sW + q * W + k, _mm512_mul_ps(_mm512_set1_ps(past[u]), v));
        }
      }
  }
  transpose(w.l[0] + PD * W, W, n, W, w.dT, nT);
  wgrad(w.dT, nT, W, w.dlsV, R, W, S, n, G + N->ssW, S);
  for (int k = 0; k < S; k++) G[N->ssb + k] += dsum[k];
  // ---- encoder, backward
  w.pitch_loss = 0;
  if (pitch_weight > 0) pitch_head(N, w, G, F, pitch, pitch_weight / N->B);
  float* dh = w.l32;
  for (int f = 0; f < F; f++) {
    float g[E];
    for (int cc = 0; cc < E; cc++) {
      float v = 0;
      for (int j = 0; j < Z; j++) {
        v += w.dz[f * Z + j] * P[N->abW + cc * Z + j];
        G[N->abW + cc * Z + j] += w.hm[f * E + cc] * w.dz[f * Z + j];
      }
      g[cc] = v / HOP;
    }
    for (int j = 0; j < Z; j++) G[N->abb + j] += w.dz[f * Z + j];
    for (int t = f * HOP; t < (f + 1) * HOP; t++) memcpy(dh + t * E, g, E * 4);
  }
  for (int i = AL - 1; i >= 0; i--) {
    int d = dil(i, N->astages);
    const Enc& e = N->enc[i];
    for (int t = 0; t < n; t += 32) {
      for (int r = 0; r < 32; r++)
        for (int k = 0; k < E; k += 16) {
          __m512 v = ld(dh + (t + r) * E + k);
          st(w.dhR + (t + r) * E + k, v);
          addto(G + e.wb + k, v);
        }
      for (int q = 0; q < E / 32; q++) A[q] = w.dhR + t * E + q * 32;
      gemm32(E / 32, A, E, N->bW[i], E, acc, E);
      for (int r = 0; r < 32; r++)
        for (int k = 0; k < E; k += 16) {
          __mmask16 on =
              _mm512_cmp_ps_mask(ld(w.r[i] + (t + r) * E + k), zero, _CMP_GT_OQ);
          __m512 v = _mm512_maskz_mov_ps(on, ld(acc + r * E + k));
          st(w.adpre + (PA + t + r) * E + k, v);
          addto(G + e.vb + k, v);
        }
    }
    interleave(w.dhR, E, n, E, w.dhV, E, 0);
    transpose(w.r[i], E, n, E, w.rT, nT);
    wgrad(w.rT, nT, E, w.dhV, E, 0, E, n, G + e.wW, E);
    interleave(w.adpre + PA * E, E, n, E, w.adpreV, E, 0);
    transpose(w.a[i] + PA * E, E, n, E, w.aT + PA, 2 * PA + nT);
    for (int k = 0; k < 3; k++)
      wgrad(w.aT + PA + (k - 1) * d, 2 * PA + nT, E, w.adpreV, E, 0, E, n,
            G + e.vW + k * E * E, E);
    for (int t = 0; t < n; t += 32) {
      for (int k = 0; k < 3; k++)
        for (int q = 0; q < E / 32; q++)
          A[k * E / 32 + q] = w.adpre + (PA + t - (k - 1) * d) * E + q * 32;
      gemm32(3 * E / 32, A, E, N->bV[i], E, acc, E);
      for (int r = 0; r < 32; r++)
        for (int k = 0; k < E; k += 16) {
          __mmask16 on =
              _mm512_cmp_ps_mask(ld(w.a[i] + (PA + t + r) * E + k), zero, _CMP_GT_OQ);
          addto(dh + (t + r) * E + k, _mm512_maskz_mov_ps(on, ld(acc + r * E + k)));
        }
    }
  }
  for (int t = 0; t < n; t++)
    for (int k = 0; k < E; k += 16) {
      __m512 v = ld(dh + t * E + k);
      addto(G + N->asb + k, v);
      for (int q = 0; q < 3; q++) {
        int u = t + q - 1;
        if (u >= 0 && u < n)
          addto(G + N->asW + q * E + k, _mm512_mul_ps(_mm512_set1_ps(x[u]), v));
      }
    }
}

// Runs one step. x, past: [B][n], companded, in [-1, 1). label: [B][n] classes, or -1
// for samples that don't count. pitch: [B] MIDI numbers. pitch_weight: of the pitch
// head's loss. lr_t: the learning rate with Adam's correction. update: 0 leaves the state
// unchanged. Returns the loss in nats per sample that counts, without the head's; writes
// the gradients to array 4, and to `figures` their norm and the head's loss in nats per
// frame.
extern "C" double net_step(Net* N, const float* x, const float* past,
                           const int32_t* label, const int32_t* pitch,
                           float pitch_weight, float lr_t, float decay, int update,
                           double* figures) {
  double loss = 0, sq = 0;
  int n = N->n, B = N->B;
  int64_t counted = 0;
  for (int i = 0; i < B * n; i++) counted += label[i] >= 0;
#pragma omp parallel num_threads(2) reduction(+ : sq)
  {
    tiles();
    // Denormals count as zero; else those of units that are never active take a third
    // of the time.
    const unsigned csr = _mm_getcsr();
    _mm_setcsr(csr | 0x8040);
    pack_all(N);
#pragma omp barrier
#pragma omp for schedule(dynamic)
    for (int b = 0; b < B; b++)
      crop(N, b, x + b * n, past + b * n, label + b * n, pitch[b], pitch_weight,
           1.f / counted);
#pragma omp for schedule(static)
    for (int64_t c = 0; c < N->size / 1024 + 1; c++) {
      __m512 q = _mm512_setzero_ps(), lr = _mm512_set1_ps(lr_t),
             eps = _mm512_set1_ps(1e-8f), keep = _mm512_set1_ps(1 - decay);
      for (int64_t i = c * 1024; i < N->size && i < (c + 1) * 1024; i += 16) {
        __m512 g = ld(N->G[0] + i);
        for (int b = 1; b < B; b++) g = _mm512_add_ps(g, ld(N->G[b] + i));
        st(N->G[0] + i, g);
        q = _mm512_fmadd_ps(g, g, q);
        if (update) {
          __m512 m = ld(N->M + i), v = ld(N->V + i), p = ld(N->P + i), a = ld(N->A + i);
          m = _mm512_fmadd_ps(_mm512_sub_ps(g, m), _mm512_set1_ps(0.1f), m);
          v = _mm512_fmadd_ps(_mm512_fmsub_ps(g, g, v), _mm512_set1_ps(0.001f), v);
          p = _mm512_sub_ps(p, _mm512_div_ps(_mm512_mul_ps(lr, m),
                                             _mm512_add_ps(_mm512_sqrt_ps(v), eps)));
          st(N->M + i, m);
          st(N->V + i, v);
          st(N->P + i, p);
          st(N->A + i, _mm512_fnmadd_ps(_mm512_sub_ps(a, p), keep, a));
        }
      }
      sq += _mm512_reduce_add_ps(q);
    }
    _mm_setcsr(csr);
  }
  figures[0] = std::sqrt(sq);
  figures[1] = 0;
  for (auto& w : N->work) {
    loss += w.loss;
    figures[1] += w.pitch_loss / B;
  }
  return loss / counted;
}

// What TVM's CUDA source uses of <cuda/std/type_traits>, for NVRTC.
#pragma once
namespace cuda {
namespace std {
template <class T, T V>
struct integral_constant {
  static constexpr T value = V;
};
template <class A, class B>
struct is_same : integral_constant<bool, false> {};
template <class A>
struct is_same<A, A> : integral_constant<bool, true> {};
template <class A, class B>
inline constexpr bool is_same_v = is_same<A, B>::value;
template <bool C, class A, class B>
struct conditional {
  using type = A;
};
template <class A, class B>
struct conditional<false, A, B> {
  using type = B;
};
template <bool C, class T = void>
struct enable_if {};
template <class T>
struct enable_if<true, T> {
  using type = T;
};
template <class T>
struct remove_cv {
  using type = T;
};
template <class T>
struct remove_cv<const T> : remove_cv<T> {};
template <class T>
struct remove_cv<volatile T> : remove_cv<T> {};
template <class T, class... Of>
inline constexpr bool is_one_of = (is_same_v<typename remove_cv<T>::type, Of> || ...);
template <class T>
struct is_floating_point : integral_constant<bool, is_one_of<T, float, double>> {};
template <class T>
struct is_integral
    : integral_constant<bool, is_one_of<T, bool, char, signed char, unsigned char, wchar_t, char16_t,
                                        char32_t, short, unsigned short, int, unsigned int, long,
                                        unsigned long, long long, unsigned long long>> {};
template <class T>
struct is_signed : integral_constant<bool, is_one_of<T, signed char, short, int, long, long long,
                                                     float, double> ||
                                               (is_one_of<T, char> && char(-1) < 0)> {};
template <class T>
struct is_unsigned
    : integral_constant<bool, is_integral<T>::value && !is_signed<T>::value> {};
}  // namespace std
}  // namespace cuda
